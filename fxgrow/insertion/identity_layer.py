"""Net2DeeperNet: a layer that is the identity, a batch norm that undoes itself, and the non-linearity once more."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis
from .block_options import Make, takes_channels, wish_for
from .blocks import identity
from .context import Around, passed
from .inserting import Drafted, draft
from .positions import Position

_UNDONE = "batch norm is the identity on its running statistics, not on those of a batch"


def draft_identity(
    gm: fx.GraphModule, analysis: Analysis, position: Position, make: Make, around: Around, where: str
) -> Drafted:
    """The identity layer for a place; its σ is the network's, and must leave what it has made already.

    Raises:
        GrowthRefused: σ is not idempotent, or the value has not passed it.
    """
    linear = not takes_channels(position, around)
    batch = make.norm == "batch" or (make.norm == "auto" and around.norm == "batch")
    norm = "batch" if batch and (not linear or len(position.value.shape) == 2) else "none"
    wish = wish_for(position, around, "identity", replace(make, norm=norm))
    layer = "linear" if linear else "conv"
    return draft(
        gm,
        analysis,
        position,
        identity(wish, linear=linear, dtype=position.value.dtype),
        "identity",
        "net2net",
        around,
        where,
        (("norm", norm), ("activation", wish.activation.kind if wish.activation else "none")),
        maps={layer: "", "norm": _UNDONE},
        fills={f"{layer}.weight": "identity", f"{layer}.bias": "zero", "norm.running_var": "identity"},
        idle=passed(gm, analysis, position.node, position.value),
    )
