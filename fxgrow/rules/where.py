"""where and masked_fill: a mask selects each entry from one of two operands."""

from __future__ import annotations

from ..capture.program.program import Op, Value
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, register
from .pointwise import aligned, is_number, meet, operands


class Choose(SameSizes):
    """where, masked_fill: `first` where the mask is true, `second` elsewhere: a sum of both, times zeros and ones."""

    by_index = True

    def __init__(self, mask: str, first: str, second: str) -> None:
        self.names = (mask, first, second)

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a sum of two products; a mask with equal units preserves signs and shares of the operands."""
        given = [name for name in self.names if isinstance(op.args[name], Value)]
        numbers = [op.args[name] for name in self.names if name not in given]
        zeros = [is_number(number) and number == 0 for number in numbers]
        rows: AxisStates = []
        for sides in aligned(op, s, [op.args[name] for name in given]):
            masks, *both = sides
            both += [[s.null if zero else s.same] * len(masks) for zero in zeros]
            rows.append([_chosen(op, s, *leaf) for leaf in zip(masks, *both, strict=True)])
        s.set(op.outputs[0], rows)


def _chosen(op: Op, s: StateContext, mask: State, first: State, second: State) -> State:
    mask = s.map_units(op, [mask], odd=False, zero=False)
    return s.add(op, [s.mul(op, [mask, operand]) for operand in (first, second)])


register(Choose("condition", "self", "other"), "where")
register(Choose("mask", "value", "self"), "masked_fill")
