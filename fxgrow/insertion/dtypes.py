"""Choose the device and the dtype of a new block: those of the value at its position."""

from __future__ import annotations

import torch
from torch import fx

from ..analysis.analysis import Analysis
from ..capture.program.program import Value
from ..errors import GrowthRefused, Kind, Refusal
from ..plans.insertion import Body, Copies
from .context import BlockContext


def nearest_tensor(gm: fx.GraphModule, context: BlockContext, value: Value, where: str) -> str:
    """Return the name of the tensor whose device a new block uses; "" if the model has none.

    Raises:
        GrowthRefused: there is none, and `value` is not on the CPU, where new modules are created.
    """
    named = (*gm.named_parameters(), *gm.named_buffers())
    found = context.like or next((name for name, tensor in named if tensor.is_floating_point()), "")
    if not found and value.device.type != "cpu":
        text = f"the model has no weights on whose device a new block could be, and {where} is on {value.device}"
        hint = "pass inputs on the CPU, or add the block to a model that has weights"
        raise GrowthRefused(Refusal(Kind.NO_VALUE, text, where=where, hint=hint))
    return found


def other_dtype(gm: fx.GraphModule, analysis: Analysis, body: Body, like: str, value: Value) -> str:
    """Return the dtype to which a block must be converted because its own differs from that of `value`, for example
    after a cast; "" if they agree. A clone may hold several dtypes, like its original."""
    if isinstance(body, Copies):
        entry = analysis.program.results.get(body.entry)
        here = entry.dtype if isinstance(entry, Value) else None
    else:
        tensors = {
            **dict(gm.named_parameters(remove_duplicate=False)),
            **dict(gm.named_buffers(remove_duplicate=False)),
        }
        here = tensors[like].dtype if like else torch.float32
    return "" if here is value.dtype else str(value.dtype).removeprefix("torch.")
