"""Texts of messages: reasons why a proof fails, and hints."""

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
"""The reason for an error at an operator that mixes units, by kind of `Mixing`."""
UNIFORM = "two or three times the width: copies of every unit leave its statistics unchanged"
"""Hint if units are mixed."""
DRAWN = (
    "scheme='zero', or let it draw in training mode only and trace again: F.dropout(x, p, self.training), nn.Dropout"
)
"""Hint if random numbers are drawn in evaluation mode."""


def stored_name(op: Op) -> str:
    """Return the name of the parameter or buffer to which a model writes."""
    before = op.args["before"]
    return str((before.names or (before.node,))[0])
