"""Concatenation, stacking, and splitting into consecutive pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed, total
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, broadcast, normal, register, regroup


class Cat(SameSizes):
    """cat: along one axis the operands are concatenated, all other axes are shared."""

    by_index = True

    def _operands(self, op: Op) -> list[Any]:
        return [x for x in op.args["tensors"] if x.shape != (0,)]

    def dims(self, op: Op, d: AxisContext) -> None:
        """The concatenated axis is the sum c1 + c2 of the axes of the operands."""
        for x in op.args["tensors"]:
            if x.shape == (0,):
                d.freeze(d.of(x)[0], Kind.FIXED, "a concatenation skips it because it is empty")
        xs = self._operands(op)
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        rows = [d.of(x) for x in xs]
        axes: list[Axis] = []
        for k in range(len(rows[0])):
            if k == at:
                axes.append(total([d.algebra.resolve(row[k]) for row in rows]))
            else:
                axes.append(broadcast(d, [(row[k], x.shape[k]) for row, x in zip(rows, xs, strict=True)]))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """States are concatenated along the axis, and must agree along the others."""
        xs = self._operands(op)
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        rows = [s.of(x) for x in xs]
        out: AxisStates = []
        for k in range(len(rows[0])):
            if k == at:
                out.append([state for row in rows for state in row[k]])
            else:
                out.append([s.merge(op, leaf) for leaf in zip(*(row[k] for row in rows), strict=True)])
        s.set(op.outputs[0], out)


class Stack(SameSizes):
    """stack: a new axis counts the operands; the others are shared, and their states may differ by operand."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The new axis may not grow; operands share all others."""
        xs = op.args["tensors"]
        rows = [d.of(x) for x in xs]
        axes = [broadcast(d, [(row[k], xs[0].shape[k]) for row in rows]) for k in range(len(rows[0]))]
        count: Axis = d.algebra.atom(len(xs)) if len(xs) > 1 else Fixed(1)
        d.freeze(count, Kind.INDEX, "it counts the operands of a stack")
        axes.insert(normal(op.args["dim"], len(op.outputs[0].shape)), count)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Along the new axis each operand has its own states."""
        rows = [s.of(x) for x in op.args["tensors"]]
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        count = s.axes(op.outputs[0])[at]
        out = [[s.by_index(op, count, leaf) for leaf in zip(*axis, strict=True)] for axis in zip(*rows, strict=True)]
        out.insert(at, [])
        s.set(op.outputs[0], out)


class Pieces:
    """chunk, split, tensor_split and their unsafe variants: an axis is split into consecutive pieces.

    If the call gives one size or the number of pieces, equal pieces are tied, so that they keep equal sizes if
    possible. If not, the call is replaced by a split with explicit sizes.
    """

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis is a concatenation of the axes of the pieces."""
        x = op.args["self"]
        axes = d.of(x)
        at = normal(op.args["dim"], len(axes))
        sizes = [out.shape[at] for out in op.outputs]
        parts = d.algebra.cut(axes[at], sizes)
        if not _lists(op):
            for part, size in zip(parts[1:], sizes[1:], strict=True):
                if size == sizes[0]:  # the last piece may be smaller
                    d.algebra.tie(parts[0], part)
        for out, part in zip(op.outputs, parts, strict=True):
            d.set(out, [part if k == at else axis for k, axis in enumerate(axes)])

    def states(self, op: Op, s: StateContext) -> None:
        """Each piece has the states of its part of the axis."""
        x = op.args["self"]
        operand = s.of(x)
        at = normal(op.args["dim"], len(operand))
        axis, start = s.axes(x)[at], 0
        axes = [s.axes(out)[at] for out in op.outputs]
        for out, part, own in zip(op.outputs, axes, regroup(s, op, operand[at], axes), strict=True):
            rows = [[s.piece(state, axis, start, part) for state in row] for row in operand]
            s.set(out, [own if k == at else row for k, row in enumerate(rows)])
            start += out.shape[at]

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the new sizes of the pieces or the indices between them; a number of pieces does not change."""
        sizes = piece_sizes(op, z)
        for name in ("split_sizes", "split_size"):
            if isinstance(op.args.get(name), list | tuple):
                return {name: sizes}
            number = op.args.get(name)
            if isinstance(number, int):
                return {name: number if len(sizes) == 1 and sizes[0] <= number else sizes[0]}
        if isinstance(op.args.get("indices"), list | tuple):
            return {"indices": [sum(sizes[: k + 1]) for k in range(len(sizes) - 1)]}
        return {}


def piece_sizes(op: Op, z: SizeContext) -> list[int]:
    """Return the size of each piece after the growth."""
    at = normal(op.args["dim"], len(op.args["self"].shape))
    return [z.shape(out)[at] for out in op.outputs]


def _lists(op: Op) -> bool:
    return any(isinstance(op.args.get(n), list | tuple) for n in ("split_sizes", "split_size", "indices"))


class Glu(SameSizes):
    """glu: the first half of an axis times the sigmoid of the second."""

    def _halves(self, z: AxisContext | StateContext, op: Op, axis: Axis) -> list[Axis]:
        half = op.args["self"].shape[normal(op.args["dim"], len(op.args["self"].shape))] // 2
        return z.algebra.cut(axis, [half, half])

    def dims(self, op: Op, d: AxisContext) -> None:
        """Both halves of the axis are the same units: c + c -> c."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        value, gate = self._halves(d, op, axes[at])
        axes[at] = d.unify(value, gate)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a product of the first half with a function of the second that is not odd."""
        x = op.args["self"]
        operand = s.of(x)
        at = normal(op.args["dim"], len(operand))
        value, gate = regroup(s, op, operand[at], self._halves(s, op, s.axes(x)[at]))
        gates = [s.map_units(op, [y], odd=False, zero=False) for y in gate]
        rows = [row if k != at else [] for k, row in enumerate(operand)]
        out = [[s.map_units(op, [y], odd=False, zero=True) for y in row] for row in rows]
        out[at] = [s.mul(op, pair) for pair in zip(value, gates, strict=True)]
        s.set(op.outputs[0], out)


register(Cat(), "cat", "concat", "concatenate")
register(Stack(), "stack")
CUTS = ["chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"]
"""Operators that split an axis into consecutive pieces."""
register(Pieces(), *CUTS)
register(Glu(), "glu")
