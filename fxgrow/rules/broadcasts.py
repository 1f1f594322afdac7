"""Tensors that are broadcast against each other, and grids of their entries; nothing is computed of them."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, register
from .pointwise import meet


class BroadcastTensors(SameSizes):
    """broadcast_tensors: each operand in the shape that all of them have together."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        axes = meet(op, d, op.args["tensors"])
        for out in op.outputs:
            d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Each operand keeps its own states, and is the same along axes that it lacks."""
        for value, out in zip(op.args["tensors"], op.outputs, strict=True):
            axes, marks = s.axes(out), s.of(value)
            rows: AxisStates = [[] for _ in range(len(axes) - len(marks))] + marks
            s.set(out, [_filled(s, row, axis) for row, axis in zip(rows, axes, strict=True)])


class Meshgrid(SameSizes):
    """meshgrid: each operand along an axis of its own, and the same along those of the others."""

    by_index = True

    def _order(self, op: Op) -> list[int]:
        """For each axis of the results the number of the operand that it is of."""
        order = list(range(len(op.args["tensors"])))
        return [1, 0, *order[2:]] if op.args.get("indexing") == "xy" and len(order) > 1 else order

    def dims(self, op: Op, d: AxisContext) -> None:
        """One axis for each operand."""
        tensors = op.args["tensors"]
        axes: list[Axis] = [d.of(tensors[k])[0] if tensors[k].shape else Fixed(1) for k in self._order(op)]
        for out in op.outputs:
            d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Each operand keeps its own states."""
        order = self._order(op)
        for number, (value, out) in enumerate(zip(op.args["tensors"], op.outputs, strict=True)):
            rows: AxisStates = [s.of(value)[0] if k == number and value.shape else [] for k in order]
            s.set(out, [_filled(s, row, axis) for row, axis in zip(rows, s.axes(out), strict=True)])


def _filled(s: StateContext, row: list[State], axis: Axis) -> list[State]:
    """The states of an axis, or of one that an operand lacks: there all units are the same."""
    return row if len(row) == s.count(axis) else [s.same] * s.count(axis)


register(BroadcastTensors(), "broadcast_tensors")
register(Meshgrid(), "meshgrid")
