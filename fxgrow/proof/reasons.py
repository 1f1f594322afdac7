"""Reasons why a choice of states does not prove, and ways out, in the words of messages."""

from __future__ import annotations

from ..capture.program.program import Op
from ..errors import Kind

_NORM = Kind.NORM, "its channels reach a normalisation that mixes them"
_STATISTIC = Kind.STATISTIC, "its channels reach a statistic over the whole axis"
MIXED = {
    "softmax": (Kind.SOFTMAX, "its channels reach a softmax over the whole axis"),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "batch_norm"), _NORM),
    **dict.fromkeys(("mean", "variance", "norm", "cosine", "extremum"), _STATISTIC),
}
"""What a growth runs into when its units are mixed."""
UNIFORM = "two or three times the width: copies of every unit leave its statistics alone"
"""A way out where units are mixed."""
DRAWN = (
    "scheme='zero', or let it draw in training mode only and trace again: F.dropout(x, p, self.training), nn.Dropout"
)
"""A way out where numbers are drawn in evaluation mode."""


def stored_name(op: Op) -> str:
    """The name of the parameter or buffer that a call leaves something in."""
    before = op.args["before"]
    return str((before.names or (before.node,))[0])
