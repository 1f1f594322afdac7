"""What the units of a layer are called in messages: channels where they are; of tokens or positions just units."""

from __future__ import annotations

from fxgrow.capture.program import Value
from fxgrow.dims.solver import DimsSolver

from .targets import Target

_TURNED = frozenset(f"aten::{name}" for name in ("transpose", "permute", "movedim", "swapaxes", "numpy_T", "mT", "t"))
"""Operators behind which the last axis may hold tokens or positions."""


def of_units(dims: DimsSolver, target: Target, text: str) -> str:
    """A sentence about "its channels", of a layer whose new units are perhaps no channels."""
    return text if _channels(dims, target) else text.replace("channels", "units").replace("one channel", "one unit")


def _channels(dims: DimsSolver, target: Target) -> bool:
    """Whether a layer makes channels, as far as its operator says: a convolution, or a linear layer of what nobody has
    turned. A table of positions, or a matrix that mixes tokens, makes others."""
    ops = [op for op in dims.program.node_ops.get(target.node, ()) if op.args.get("weight") is not None]
    if any(op.name.startswith("aten::conv") or op.name == "aten::embedding" for op in ops):
        return True
    read = [op.args.get("input") for op in ops if op.name == "aten::linear"]
    makers = {out.index: op.name for op in dims.program.ops for out in op.outputs}
    return bool(read) and not any(isinstance(x, Value) and makers.get(x.index) in _TURNED for x in read)
