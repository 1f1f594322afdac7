"""Sums of axes: concatenation, stacking, and cutting into consecutive pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed, total
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, broadcast, normal, register, regroup


class Cat(SameSizes):
    """cat: one axis is the sum of the operands', all others are shared."""

    by_index = True

    def _operands(self, op: Op) -> list[Any]:
        return [x for x in op.args["tensors"] if x.shape != (0,)]

    def dims(self, op: Op, d: AxisContext) -> None:
        """c = c1 + c2."""
        for x in op.args["tensors"]:
            if x.shape == (0,):
                d.freeze(d.of(x)[0], Kind.FIXED, "a concatenation passes it over because it is empty")
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
    """stack: a new axis that counts the operands; the others are shared, and their states may differ by operand."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The new axis keeps its number of units."""
        xs = op.args["tensors"]
        rows = [d.of(x) for x in xs]
        axes = [broadcast(d, [(row[k], xs[0].shape[k]) for row in rows]) for k in range(len(rows[0]))]
        count: Axis = d.algebra.atom(len(xs)) if len(xs) > 1 else Fixed(1)
        d.freeze(count, Kind.INDEX, "it counts the operands of a stack")
        axes.insert(normal(op.args["dim"], len(op.outputs[0].shape)), count)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Each operand keeps its own."""
        rows = [s.of(x) for x in op.args["tensors"]]
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        count = s.axes(op.outputs[0])[at]
        out = [[s.by_index(op, count, leaf) for leaf in zip(*axis, strict=True)] for axis in zip(*rows, strict=True)]
        out.insert(at, [])
        s.set(op.outputs[0], out)


class Pieces:
    """chunk, split, tensor_split, unsafe variants: an axis is cut into consecutive pieces.

    Where the call names one size or a number of pieces, equal pieces are tied: they grow in step if they can. If they
    cannot, the call becomes a split into pieces of written sizes.
    """

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Cut the axis where the pieces meet."""
        x = op.args["self"]
        axes = d.of(x)
        at = normal(op.args["dim"], len(axes))
        sizes = [out.shape[at] for out in op.outputs]
        parts = d.algebra.cut(axes[at], sizes)
        if not _lists(op):
            for part, size in zip(parts[1:], sizes[1:], strict=True):
                if size == sizes[0]:  # the last piece may be what is left over
                    d.algebra.tie(parts[0], part)
        for out, part in zip(op.outputs, parts, strict=True):
            d.set(out, [part if k == at else axis for k, axis in enumerate(axes)])

    def states(self, op: Op, s: StateContext) -> None:
        """Each piece takes its own."""
        x = op.args["self"]
        marks = s.of(x)
        at = normal(op.args["dim"], len(marks))
        axis, start = s.axes(x)[at], 0
        axes = [s.axes(out)[at] for out in op.outputs]
        for out, part, own in zip(op.outputs, axes, regroup(s, op, marks[at], axes), strict=True):
            rows = [[s.piece(state, axis, start, part) for state in row] for row in marks]
            s.set(out, [own if k == at else row for k, row in enumerate(rows)])
            start += out.shape[at]

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Written sizes and cut points follow; a number of pieces stays."""
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
    """How large each piece is after a growth."""
    at = normal(op.args["dim"], len(op.args["self"].shape))
    return [z.shape(out)[at] for out in op.outputs]


def _lists(op: Op) -> bool:
    return any(isinstance(op.args.get(n), list | tuple) for n in ("split_sizes", "split_size", "indices"))


class Glu(SameSizes):
    """glu: the first half of an axis times the sigmoid of the second."""

    by_index = False  # its operands hold several indices

    def _halves(self, z: AxisContext | StateContext, op: Op, axis: Axis) -> list[Axis]:
        half = op.args["self"].shape[normal(op.args["dim"], len(op.args["self"].shape))] // 2
        return z.algebra.cut(axis, [half, half])

    def dims(self, op: Op, d: AxisContext) -> None:
        """Both halves are one set of units: c + c -> c."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        value, gate = self._halves(d, op, axes[at])
        axes[at] = d.unify(value, gate)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """A product with a function that is not odd."""
        x = op.args["self"]
        marks = s.of(x)
        at = normal(op.args["dim"], len(marks))
        value, gate = regroup(s, op, marks[at], self._halves(s, op, s.axes(x)[at]))
        gates = [s.map_units(op, [y], odd=False, zero=False) for y in gate]
        rows = [row if k != at else [] for k, row in enumerate(marks)]
        out = [[s.map_units(op, [y], odd=False, zero=True) for y in row] for row in rows]
        out[at] = [s.mul(op, pair) for pair in zip(value, gates, strict=True)]
        s.set(op.outputs[0], out)


register(Cat(), "cat", "concat", "concatenate")
register(Stack(), "stack")
CUTS = ["chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"]
"""Operators that cut an axis into consecutive pieces."""
register(Pieces(), *CUTS)
register(Glu(), "glu")
