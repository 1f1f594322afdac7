"""The rule for parameters and buffers that a model writes to: the next call reads what this call has written."""

from __future__ import annotations

from ..capture.program.program import STORED, Op
from ..errors import Kind
from .base import AxisContext, SameSizes, StateContext, register


class Stored(SameSizes):
    """fxgrow::stored: a parameter or buffer has the value `before` when the call begins, and `after` when it ends.

    The next call begins with the value `after`, so new units must have the same state in both; otherwise the proof for
    this call is not valid for the next one.
    """

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Both values belong to one tensor, so they have the same axes."""
        before, after = d.of(op.args["before"]), d.of(op.args["after"])
        for ours, theirs in zip(before, after, strict=True):
            if op.args["lost"]:
                for axis in (ours, theirs):
                    d.freeze(axis, Kind.ALIAS, f"the value that {op.args['lost']} writes to a tensor is not known")
            d.unify(ours, theirs)

    def states(self, op: Op, s: StateContext) -> None:
        """The state after the call must be that before it."""
        for ours, theirs in zip(s.of(op.args["before"]), s.of(op.args["after"]), strict=True):
            for before, after in zip(ours, theirs, strict=True):
                s.keep(op, before, after)


register(Stored(), STORED)
