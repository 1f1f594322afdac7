"""slice, narrow, select and unbind: operators that take units of an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, SameSizes, SizeContext, StateContext, normal, register, regroup

STRIDE = "a slice with a step selects its units by index"
"""Why the axis of a slice with a step may not grow."""


class Unbind(SameSizes):
    """unbind: one result for each unit of an axis, which may therefore not grow."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The results have all other axes."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "unbind returns one tensor for each of its units")
        for out in op.outputs:
            d.set(out, axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: StateContext) -> None:
        """The states are those of the operand at each unit of the axis."""
        rows = s.of(op.args["self"])
        at = normal(op.args["dim"], len(rows))
        axis = s.axes(op.args["self"])[at]
        for number, out in enumerate(op.outputs):
            s.set(out, [[s.select(x, axis, number) for x in row] for row in rows[:at] + rows[at + 1 :]])


class Select(SameSizes):
    """select: one unit of an axis, as in `x[:, 0]`."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis of the unit may not grow; the result has all others."""
        axes = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "one of its units is selected by index")
        d.set(op.outputs[0], axes[:at] + axes[at + 1 :])

    def states(self, op: Op, s: StateContext) -> None:
        """The states are those of the operand at the selected unit."""
        rows = s.of(op.args["self"])
        at = normal(op.args["dim"], len(rows))
        axis, number = s.axes(op.args["self"])[at], normal(op.args["index"], op.args["self"].shape[at])
        s.set(op.outputs[0], [[s.select(x, axis, number) for x in row] for row in rows[:at] + rows[at + 1 :]])


class Range:
    """The position of a slice along dimension `dim` of the argument `self`, before and after a growth.

    Args:
        op: the operator that takes or replaces the slice.
        part: the slice, which gives its length.
    """

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
        """Cut the axis into the units before the slice, the slice, and the units after it."""
        return z.algebra.cut(axis, [self.start, self.length, self.size - self.start - self.length])

    def resized(self, z: SizeContext) -> dict[str, Any]:
        """Return the arguments that give the start and the end of the slice after the growth."""
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
    """slice and narrow: consecutive units of an axis."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis is cut at both ends of the slice; with a step other than 1 it may not grow."""
        axes, cut = d.of(op.args["self"]), Range(op, op.outputs[0])
        if cut.strided:
            d.freeze(axes[cut.at], Kind.INDEX, STRIDE)
            axes[cut.at] = Fixed(cut.length)
        elif not cut.whole:
            axes[cut.at] = cut.cut(d, axes[cut.at])[1]
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The slice has the states of its part of the axis."""
        operand, cut = s.of(op.args["self"]), Range(op, op.outputs[0])
        if not cut.whole and not cut.strided:
            axis = s.axes(op.args["self"])[cut.at]
            parts = cut.cut(s, axis)
            own = regroup(s, op, operand[cut.at], parts)[1]
            rows = [[s.piece(state, axis, cut.start, parts[1]) for state in row] for row in operand]
            operand = [own if k == cut.at else row for k, row in enumerate(rows)]
        s.set(op.outputs[0], operand)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the start and the end of the slice after the growth."""
        return Range(op, op.outputs[0]).resized(z)


register(Unbind(), "unbind")
register(Select(), "select")
register(Slice(), "slice", "narrow")
