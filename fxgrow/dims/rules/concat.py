"""Sums of axes: concatenation, stacking, and everything that takes a part of an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...capture.program import Op
from ...errors import Kind
from ..axis import Axis, Fixed, total
from .base import Dims, Flow, Marks, SameSizes, Sizes, normal, register, regroup
from .contraction import broadcast


class Cat(SameSizes):
    """cat: one axis is the sum of the operands', all others are shared."""

    def _operands(self, op: Op) -> list[Any]:
        return [x for x in op.args["tensors"] if x.shape != (0,)]

    def dims(self, op: Op, d: Dims) -> None:
        """c = c1 + c2."""
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

    def states(self, op: Op, s: Flow) -> None:
        """States are concatenated along the axis, and must agree along the others."""
        xs = self._operands(op)
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        rows = [s.of(x) for x in xs]
        out: Marks = []
        for k in range(len(rows[0])):
            if k == at:
                out.append([state for row in rows for state in row[k]])
            else:
                out.append([s.merge(op, leaf) for leaf in zip(*(row[k] for row in rows), strict=True)])
        s.set(op.outputs[0], out)


class Stack(SameSizes):
    """stack: a new axis of fixed size; the others are shared."""

    def dims(self, op: Op, d: Dims) -> None:
        """The new axis counts the operands."""
        xs = op.args["tensors"]
        rows = [d.of(x) for x in xs]
        axes = [broadcast(d, [(row[k], xs[0].shape[k]) for row in rows]) for k in range(len(rows[0]))]
        axes.insert(normal(op.args["dim"], len(op.outputs[0].shape)), Fixed(len(xs)))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: Flow) -> None:
        """Operands must agree."""
        rows = [s.of(x) for x in op.args["tensors"]]
        out = [[s.merge(op, leaf) for leaf in zip(*axis, strict=True)] for axis in zip(*rows, strict=True)]
        out.insert(normal(op.args["dim"], len(op.outputs[0].shape)), [])
        s.set(op.outputs[0], out)


class Pieces:
    """chunk, split, tensor_split, unsafe variants: an axis is cut into consecutive pieces.

    Where the call names one size or a number of pieces, equal pieces are tied: they grow in step if they can. If they
    cannot, the call becomes a split into pieces of written sizes.
    """

    def dims(self, op: Op, d: Dims) -> None:
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

    def states(self, op: Op, s: Flow) -> None:
        """Each piece takes its own."""
        x = op.args["self"]
        marks = s.of(x)
        at = normal(op.args["dim"], len(marks))
        parts = regroup(s, op, marks[at], [s.axes(out)[at] for out in op.outputs])
        for out, part in zip(op.outputs, parts, strict=True):
            s.set(out, [part if k == at else row for k, row in enumerate(marks)])

    def resized(self, op: Op, z: Sizes) -> Mapping[str, Any]:
        """Written sizes and cut points follow; a number of pieces stays."""
        sizes = piece_sizes(op, z)
        for name in ("split_sizes", "split_size"):
            if isinstance(op.args.get(name), list | tuple):
                return {name: sizes}
            if isinstance(op.args.get(name), int):
                return {name: sizes[0]}
        if isinstance(op.args.get("indices"), list | tuple):
            return {"indices": [sum(sizes[: k + 1]) for k in range(len(sizes) - 1)]}
        return {}


def piece_sizes(op: Op, z: Sizes) -> list[int]:
    """How large each piece is after a growth."""
    at = normal(op.args["dim"], len(op.args["self"].shape))
    return [z.shape(out)[at] for out in op.outputs]


def _lists(op: Op) -> bool:
    return any(isinstance(op.args.get(n), list | tuple) for n in ("split_sizes", "split_size", "indices"))


class Glu(SameSizes):
    """glu: the first half of an axis times the sigmoid of the second."""

    def _halves(self, z: Dims | Flow, op: Op, axis: Axis) -> list[Axis]:
        half = op.args["self"].shape[normal(op.args["dim"], len(op.args["self"].shape))] // 2
        return z.algebra.cut(axis, [half, half])

    def dims(self, op: Op, d: Dims) -> None:
        """Both halves are one set of units: c + c -> c."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        value, gate = self._halves(d, op, axes[at])
        axes[at] = d.unify(value, gate)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: Flow) -> None:
        """A product with a function that is not odd."""
        x = op.args["self"]
        marks = s.of(x)
        at = normal(op.args["dim"], len(marks))
        value, gate = regroup(s, op, marks[at], self._halves(s, op, s.axes(x)[at]))
        gates = [s.apply(op, [y], odd=False, zero=False) for y in gate]
        out = [[s.apply(op, [y], odd=False, zero=True) for y in row] for row in marks]
        out[at] = [s.mul(op, pair) for pair in zip(value, gates, strict=True)]
        s.set(op.outputs[0], out)


class Unbind(SameSizes):
    """unbind: one result for each unit of an axis, which must therefore keep its number of units."""

    def dims(self, op: Op, d: Dims) -> None:
        """The axis is opened unit by unit."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "it is taken apart unit by unit")
        for out in op.outputs:
            d.set(out, axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: Flow) -> None:
        """States go with their axes."""
        marks = s.of(op.args["self"])
        at = normal(op.args["dim"], len(marks))
        for out in op.outputs:
            s.set(out, marks[:at] + marks[at + 1 :])


class Select(SameSizes):
    """select: one unit of an axis."""

    def dims(self, op: Op, d: Dims) -> None:
        """Which unit it is must not change."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "one unit of it is selected by its number")
        d.set(op.outputs[0], axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: Flow) -> None:
        """States go with their axes."""
        marks = s.of(op.args["self"])
        at = normal(op.args["dim"], len(marks))
        s.set(op.outputs[0], marks[:at] + marks[at + 1 :])


class Slice:
    """slice and narrow: part of a sum."""

    def _range(self, op: Op, size: int, at: int) -> tuple[int, int]:
        if op.name == "aten::narrow":
            start = normal(int(op.args["start"]), size)
            return start, start + op.args["length"]
        start = op.args.get("start") or 0
        start = min(max(normal(start, size), 0), size)
        return start, min(start + op.outputs[0].shape[at], size)

    def _at(self, op: Op) -> int:
        return normal(op.args["dim"], len(op.args["self"].shape))

    def dims(self, op: Op, d: Dims) -> None:
        """Cut the axis at both ends; a stride other than one picks units by number."""
        x = op.args["self"]
        axes = d.of(x)
        at = self._at(op)
        size, out = x.shape[at], op.outputs[0].shape[at]
        if op.args.get("step", 1) not in (1, None):
            d.freeze(axes[at], Kind.INDEX, "a slice with a stride picks its units by number")
            part: Axis = Fixed(out)
        elif out == size:
            part = axes[at]
        else:
            start, stop = self._range(op, size, at)
            part = d.algebra.cut(axes[at], [start, stop - start, size - stop])[1]
        d.set(op.outputs[0], [part if k == at else axis for k, axis in enumerate(axes)])

    def _parts(self, op: Op, axis: Axis, z: Flow | Sizes) -> list[Axis]:
        at = self._at(op)
        size = op.args["self"].shape[at]
        start, stop = self._range(op, size, at)
        return z.algebra.cut(axis, [start, stop - start, size - stop])

    def states(self, op: Op, s: Flow) -> None:
        """The part keeps its own."""
        x, at = op.args["self"], self._at(op)
        marks = s.of(x)
        if marks[at] and op.outputs[0].shape[at] != x.shape[at]:
            marks[at] = regroup(s, op, marks[at], self._parts(op, s.axes(x)[at], s))[1]
        s.set(op.outputs[0], marks)

    def resized(self, op: Op, z: Sizes) -> Mapping[str, Any]:
        """Where the part begins and ends after the growth."""
        x, at = op.args["self"], self._at(op)
        size = x.shape[at]
        if op.args.get("step", 1) not in (1, None) or z.shape(x)[at] == size:
            return {}
        if op.outputs[0].shape[at] == size:
            return {"length": z.shape(x)[at]} if op.name == "aten::narrow" else _whole(op, size, z.shape(x)[at])
        before, part, after = (z.size(p) for p in self._parts(op, z.axes(x)[at], z))
        if op.name == "aten::narrow":
            return {"start": before if op.args["start"] >= 0 else -(part + after), "length": part}
        new: dict[str, Any] = {}
        start, end = op.args.get("start"), op.args.get("end")
        if start is not None and start != 0:
            new["start"] = before if start > 0 else -(part + after)
        if end is not None and end < size:
            new["end"] = before + part if end >= 0 else -after
        elif end is not None and end < 2**31:
            new["end"] = before + part + after
        return new


def _whole(op: Op, size: int, now: int) -> dict[str, Any]:
    new: dict[str, Any] = {}
    if isinstance(op.args.get("end"), int) and size <= op.args["end"] < 2**31:
        new["end"] = now
    if isinstance(op.args.get("start"), int) and op.args["start"] < 0:
        new["start"] = -now
    return new


class AdaptSkip:
    """fxgrow's skip adapter: two volumes that are told apart on purpose; each may grow without the other."""

    def dims(self, op: Op, d: Dims) -> None:
        """The channel axis of the result is a volume of its own."""
        axes = d.of(op.args["x"])
        at = normal(op.args["dim"], len(axes))
        axes[at] = d.algebra.atom(op.args["width"])
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: Flow) -> None:
        """Halves of the operand's new block cancel here; channels that the skip lacks are zero, hence equal."""
        marks = s.of(op.args["x"])
        at = normal(op.args["dim"], len(marks))
        for state in marks[at]:
            s.require(op, state, even=True, why="r(left) - r(right) must vanish")
        marks[at] = [s.zero] * s.count(s.axes(op.outputs[0])[at])
        s.set(op.outputs[0], marks)

    def resized(self, op: Op, z: Sizes) -> Mapping[str, Any]:
        """The blocks of halves and the width."""
        x, out = op.args["x"], op.outputs[0]
        at = normal(op.args["dim"], len(x.shape))
        new: dict[str, Any] = {"width": z.shape(out)[at]}
        grown = (z.shape(x)[at] - x.shape[at]) // 2
        if grown:
            new["pairs"] = [*op.args["pairs"], (x.shape[at], grown)]
        return new


register(Cat(), "cat", "concat", "concatenate")
register(Stack(), "stack")
CUTS = ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
"""Operators that cut an axis into consecutive pieces."""
register(Pieces(), *CUTS)
register(Glu(), "glu")
register(Unbind(), "unbind")
register(Select(), "select")
register(Slice(), "slice", "narrow")
register(AdaptSkip(), "fxgrow::adapt_skip")
