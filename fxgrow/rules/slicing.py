"""Operators that take part of an axis: slices, single units, one result for each unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, SameSizes, SizeContext, StateContext, normal, register, regroup

STRIDE = "a slice with a stride picks its units by number"
"""Why an axis may not grow."""


class Unbind(SameSizes):
    """unbind: one result for each unit of an axis, which must therefore keep its number of units."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis is opened unit by unit."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "it is taken apart unit by unit")
        for out in op.outputs:
            d.set(out, axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: StateContext) -> None:
        """States go with their axes."""
        marks = s.of(op.args["self"])
        at = normal(op.args["dim"], len(marks))
        axis = s.axes(op.args["self"])[at]
        for number, out in enumerate(op.outputs):
            s.set(out, [[s.select(x, axis, number) for x in row] for row in marks[:at] + marks[at + 1 :]])


class Select(SameSizes):
    """select: one unit of an axis."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Which unit it is must not change."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "one unit of it is selected by its number")
        d.set(op.outputs[0], axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: StateContext) -> None:
        """States go with their axes."""
        marks = s.of(op.args["self"])
        at = normal(op.args["dim"], len(marks))
        axis, number = s.axes(op.args["self"])[at], normal(op.args["index"], op.args["self"].shape[at])
        s.set(op.outputs[0], [[s.select(x, axis, number) for x in row] for row in marks[:at] + marks[at + 1 :]])


class Range:
    """Where a slice lies: axis `dim` of `self` from `start` on, as many units as `part` has; and after a growth."""

    def __init__(self, op: Op, part: Value) -> None:
        self.op = op
        self.at = normal(op.args["dim"], len(op.args["self"].shape))
        self.size = op.args["self"].shape[self.at]
        self.length = part.shape[self.at]
        self.strided = op.args.get("step", 1) not in (1, None)
        self.whole = self.length == self.size
        start = op.args.get("start") or 0
        self.start = min(max(normal(int(start), self.size), 0), self.size)

    def cut(self, z: AxisContext | StateContext | SizeContext, axis: Axis) -> list[Axis]:
        """The axis as what lies before the slice, the slice, and what lies behind it."""
        return z.algebra.cut(axis, [self.start, self.length, self.size - self.start - self.length])

    def resized(self, z: SizeContext) -> dict[str, Any]:
        """Where it begins and ends after the growth."""
        op, x = self.op, self.op.args["self"]
        now = z.shape(x)[self.at]
        if self.strided or now == self.size:
            return {}
        if self.whole:
            return {"length": now} if op.name == "aten::narrow" else self._whole(now)
        before, part, after = (z.size(p) for p in self.cut(z, z.axes(x)[self.at]))
        if op.name == "aten::narrow":
            return {"start": before if op.args["start"] >= 0 else -(part + after), "length": part}
        new: dict[str, Any] = {}
        start, end = op.args.get("start"), op.args.get("end")
        if start is not None and start != 0:
            new["start"] = before if start > 0 else -(part + after)
        if end is not None and end < self.size:
            new["end"] = before + part if end >= 0 else -after
        elif end is not None and end < 2**31:
            new["end"] = before + part + after
        return new

    def _whole(self, now: int) -> dict[str, Any]:
        new: dict[str, Any] = {}
        start, end = self.op.args.get("start"), self.op.args.get("end")
        if isinstance(end, int) and self.size <= end < 2**31:
            new["end"] = now
        if isinstance(start, int) and start < 0:
            new["start"] = -now
        return new


class Slice:
    """slice and narrow: part of a sum."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Cut the axis at both ends; a stride other than one picks units by number."""
        axes, cut = d.of(op.args["self"]), Range(op, op.outputs[0])
        if cut.strided:
            d.freeze(axes[cut.at], Kind.INDEX, STRIDE)
            axes[cut.at] = Fixed(cut.length)
        elif not cut.whole:
            axes[cut.at] = cut.cut(d, axes[cut.at])[1]
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The part keeps its own."""
        marks, cut = s.of(op.args["self"]), Range(op, op.outputs[0])
        if not cut.whole and not cut.strided:
            axis = s.axes(op.args["self"])[cut.at]
            parts = cut.cut(s, axis)
            own = regroup(s, op, marks[cut.at], parts)[1]
            rows = [[s.piece(state, axis, cut.start, parts[1]) for state in row] for row in marks]
            marks = [own if k == cut.at else row for k, row in enumerate(rows)]
        s.set(op.outputs[0], marks)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Where the part begins and ends after the growth."""
        return Range(op, op.outputs[0]).resized(z)


register(Unbind(), "unbind")
register(Select(), "select")
register(Slice(), "slice", "narrow")
