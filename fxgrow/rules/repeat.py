"""repeat_interleave, repeat and tile: every unit of an axis, or the axis as a whole, is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed, product, terms_of
from ..errors import Kind
from .base import AxisContext, SizeContext, State, StateContext, normal, register, regroup


def _times(d: AxisContext, count: int) -> Axis:
    """Return an axis of repetitions, whose number may change as consumers require."""
    return Fixed(1) if count == 1 else d.algebra.atom(count)


class RepeatInterleave:
    """repeat_interleave: each unit of an axis, or of the flattened tensor, is repeated; c becomes (c r)."""

    by_index = True

    def _at(self, op: Op) -> int | None:
        dim = op.args.get("dim")
        return None if dim is None else normal(dim, len(op.args["self"].shape))

    def dims(self, op: Op, d: AxisContext) -> None:
        """The repeated axis is a product with the number of repetitions, which must not come from a tensor."""
        out = op.outputs[0]
        if not isinstance(op.args["repeats"], int):
            for axis in (axis for value in op.inputs() for axis in d.of(value)):
                d.freeze(axis, Kind.INDEX, "another tensor determines how often its units are repeated")
            d.set(out, [Fixed(n) for n in out.shape])
            return
        axes, at = [d.algebra.resolve(axis) for axis in d.of(op.args["self"])], self._at(op)
        times = _times(d, op.args["repeats"])
        if at is None:
            d.set(out, [product([*axes, times])])
        else:
            d.set(out, [product([axis, times]) if k == at else axis for k, axis in enumerate(axes)])

    def states(self, op: Op, s: StateContext) -> None:
        """All repetitions of a unit are the same."""
        rows, axes, at = s.of(op.args["self"]), s.axes(op.args["self"]), self._at(op)
        row = [state for some in rows for state in some] if at is None else rows[at]
        whole = terms_of(s.algebra.resolve(product(axes) if at is None else axes[at]))
        after = terms_of(s.algebra.resolve(s.axes(op.outputs[0])[at or 0]))
        if len(whole) == len(after):  # (a + b) r is (a r) + (b r)
            parts: list[State] = []
            for some, term in zip(regroup(s, op, row, whole), after, strict=True):
                parts += [*some, *[s.same] * (s.count(term) - len(some))]
            row = parts
        s.set(op.outputs[0], [row] if at is None else [*rows[:at], row, *rows[at + 1 :]])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the number of repetitions, and the output size if it is given."""
        x, out, at = z.shape(op.args["self"]), z.shape(op.outputs[0]), self._at(op)
        if not isinstance(op.args["repeats"], int):
            return {}
        new = {"repeats": out[0] // prod(x) if at is None else out[at] // x[at]}
        return new if op.args.get("output_size") is None else {**new, "output_size": out[at or 0]}


class Repeat:
    """repeat and tile: every axis is repeated as a whole, c becomes (r c); new axes come first."""

    by_index = True

    def __init__(self, times: str) -> None:
        """`times`: name of the argument with the numbers of repetitions, which may omit leading axes."""
        self.times = times

    def dims(self, op: Op, d: AxisContext) -> None:
        """Every axis is a product of the number of repetitions and the axis of the operand."""
        axes = [d.algebra.resolve(axis) for axis in d.of(op.args["self"])]
        times = [_times(d, count) for count in op.args[self.times]]
        times = [*(Fixed(1) for _ in range(len(axes) - len(times))), *times]
        new = len(times) - len(axes)
        d.set(op.outputs[0], [*times[:new], *(product(list(pair)) for pair in zip(times[new:], axes, strict=True))])

    def states(self, op: Op, s: StateContext) -> None:
        """All repetitions of an axis are the same."""
        operand, out = s.of(op.args["self"]), s.axes(op.outputs[0])
        rows: list[list[State]] = [[] for _ in range(len(out) - len(operand))] + operand
        s.set(op.outputs[0], [_in_front(s, op, row, axis) for row, axis in zip(rows, out, strict=True)])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the numbers of repetitions."""
        x, out = z.shape(op.args["self"]), z.shape(op.outputs[0])
        old = [1] * (len(out) - len(x)) + list(x)
        times = [n // m for n, m in zip(out, old, strict=True)]
        return {self.times: times[len(times) - len(op.args[self.times]) :]}


def _in_front(s: StateContext, op: Op, row: list[State], axis: Axis) -> list[State]:
    """Return the states of an axis in which repetitions are the leading occurrences of each term."""
    parts: list[State] = []
    for term in terms_of(s.algebra.resolve(axis)):
        missing = s.count(term) - len(row)
        if missing < 0:
            return [s.merge(op, row)] * s.count(axis)
        parts += [*[s.same] * missing, *row]
    return parts


register(RepeatInterleave(), "repeat_interleave")
register(Repeat("repeats"), "repeat")
register(Repeat("dims"), "tile")
