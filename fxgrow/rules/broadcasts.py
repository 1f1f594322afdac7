"""broadcast_tensors and meshgrid: tensors are broadcast to one shape, without arithmetic."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, register
from .pointwise import meet


class BroadcastTensors(SameSizes):
    """broadcast_tensors: each operand is broadcast to the common shape of all operands."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        axes = meet(op, d, op.args["tensors"])
        for out in op.outputs:
            d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Each result has the states of its operand, and is the same for all units of axes that the operand lacks."""
        for value, out in zip(op.args["tensors"], op.outputs, strict=True):
            axes, operand = s.axes(out), s.of(value)
            rows: AxisStates = [[] for _ in range(len(axes) - len(operand))] + operand
            s.set(out, [_filled(s, row, axis) for row, axis in zip(rows, axes, strict=True)])


class Meshgrid(SameSizes):
    """meshgrid: each operand varies along one axis of the grid, and is the same along the others."""

    by_index = True

    def _order(self, op: Op) -> list[int]:
        """Return for each axis of the results the index of the operand from which it comes."""
        order = list(range(len(op.args["tensors"])))
        return [1, 0, *order[2:]] if op.args.get("indexing") == "xy" and len(order) > 1 else order

    def dims(self, op: Op, d: AxisContext) -> None:
        """The results have one axis for each operand."""
        tensors = op.args["tensors"]
        axes: list[Axis] = [d.of(tensors[k])[0] if tensors[k].shape else Fixed(1) for k in self._order(op)]
        for out in op.outputs:
            d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Each result has the states of its operand, and is the same for all units of the other axes."""
        order = self._order(op)
        for number, (value, out) in enumerate(zip(op.args["tensors"], op.outputs, strict=True)):
            rows: AxisStates = [s.of(value)[0] if k == number and value.shape else [] for k in order]
            s.set(out, [_filled(s, row, axis) for row, axis in zip(rows, s.axes(out), strict=True)])


def _filled(s: StateContext, row: list[State], axis: Axis) -> list[State]:
    """Return the states of an axis; if the operand lacks it, it is the same for all units."""
    return row if len(row) == s.count(axis) else [s.same] * s.count(axis)


register(BroadcastTensors(), "broadcast_tensors")
register(Meshgrid(), "meshgrid")
