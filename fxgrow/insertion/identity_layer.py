"""Net2DeeperNet: insert a layer that is the identity, a batch norm that is the identity, and the activation once
more."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis
from .block_options import BlockOptions, block_spec, takes_channels
from .blocks import identity
from .context import BlockContext, passed
from .inserting import Drafted, draft
from .positions import Position

_UNDONE = "batch norm is the identity on its running statistics, not on those of a batch"


def draft_identity(
    gm: fx.GraphModule, analysis: Analysis, position: Position, make: BlockOptions, context: BlockContext, where: str
) -> Drafted:
    """Draft the identity layer for a position. Its activation must leave the value unchanged.

    Raises:
        GrowthRefused: the activation is not idempotent, or has not been applied to the value.
    """
    linear = not takes_channels(position, context)
    batch = make.norm == "batch" or (make.norm == "auto" and context.norm == "batch")
    norm = "batch" if batch and (not linear or len(position.value.shape) == 2) else "none"
    spec = block_spec(position, context, "identity", replace(make, norm=norm))
    layer = "linear" if linear else "conv"
    return draft(
        gm,
        analysis,
        position,
        identity(spec, linear=linear, dtype=position.value.dtype),
        "identity",
        "net2net",
        context,
        where,
        (("norm", norm), ("activation", spec.activation.kind if spec.activation else "none")),
        maps={layer: "", "norm": _UNDONE},
        fills={f"{layer}.weight": "identity", f"{layer}.bias": "zero", "norm.running_var": "identity"},
        idle=passed(gm, analysis, position.node, position.value),
    )
