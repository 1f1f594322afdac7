"""What a call leaves behind in the parameters and buffers that it writes to, and the next call finds there."""

from __future__ import annotations

from ..capture.program.program import STORED, Op
from ..errors import Kind
from .base import AxisContext, SameSizes, StateContext, register


class Stored(SameSizes):
    """A parameter or buffer holds `before` when the call begins, and `after` when it ends.

    The next call begins with what this one left, so new units must be in the same state as before, or what was
    proved of this call does not hold for the next one.
    """

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """One tensor, hence the same axes."""
        before, after = d.of(op.args["before"]), d.of(op.args["after"])
        for ours, theirs in zip(before, after, strict=True):
            if op.args["lost"]:
                for axis in (ours, theirs):
                    d.freeze(axis, Kind.ALIAS, f"what {op.args['lost']} leaves in a tensor of the model is not known")
            d.unify(ours, theirs)

    def states(self, op: Op, s: StateContext) -> None:
        """The state is kept."""
        for ours, theirs in zip(s.of(op.args["before"]), s.of(op.args["after"]), strict=True):
            for before, after in zip(ours, theirs, strict=True):
                s.keep(op, before, after)


register(Stored(), STORED)
