"""The catalogue of blocks that can be inserted. Each is a function from a `BlockSpec` to `Layers`; register new ones
here."""

from collections.abc import Callable

from ...plans.insertion import Layers
from .base import BlockBuilder, BlockSpec
from .conv import basic, bottleneck, depthwise
from .identity import factor, identity
from .tokens import mlp, transformer

BLOCKS: dict[str, Callable[[BlockSpec], Layers]] = {
    "basic": basic,
    "bottleneck": bottleneck,
    "depthwise": depthwise,
    "mlp": mlp,
    "transformer": transformer,
}
CONVOLUTIONS = ("basic", "bottleneck", "depthwise")

__all__ = ["BLOCKS", "CONVOLUTIONS", "BlockBuilder", "BlockSpec", "factor", "identity"]
