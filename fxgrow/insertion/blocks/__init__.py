"""Blocks that can be inserted. Each is a function from a wish to layers written out; add one here to offer it."""

from collections.abc import Callable

from ...plans.insertion import Layers
from .base import Pen, Wish
from .conv import basic, bottleneck, depthwise
from .identity import factor, identity
from .tokens import mlp, transformer

BLOCKS: dict[str, Callable[[Wish], Layers]] = {
    "basic": basic,
    "bottleneck": bottleneck,
    "depthwise": depthwise,
    "mlp": mlp,
    "transformer": transformer,
}
CONVOLUTIONS = ("basic", "bottleneck", "depthwise")

__all__ = ["BLOCKS", "CONVOLUTIONS", "Pen", "Wish", "factor", "identity"]
