"""Operators that take part of an axis: slices, single units, one result for each unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...capture.program import Op
from ...errors import Kind
from ..axis import Axis, Fixed
from .base import Dims, Flow, SameSizes, Sizes, normal, register, regroup


class Unbind(SameSizes):
    """unbind: one result for each unit of an axis, which must therefore keep its number of units."""

    by_index = True

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
        axis = s.axes(op.args["self"])[at]
        for number, out in enumerate(op.outputs):
            s.set(out, [[s.picked(x, axis, number) for x in row] for row in marks[:at] + marks[at + 1 :]])


class Select(SameSizes):
    """select: one unit of an axis."""

    by_index = True

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
        axis, number = s.axes(op.args["self"])[at], normal(op.args["index"], op.args["self"].shape[at])
        s.set(op.outputs[0], [[s.picked(x, axis, number) for x in row] for row in marks[:at] + marks[at + 1 :]])


class Slice:
    """slice and narrow: part of a sum."""

    by_index = True

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


register(Unbind(), "unbind")
register(Select(), "select")
register(Slice(), "slice", "narrow")
