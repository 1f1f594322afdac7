"""A model as bits: what must be equal before and after a call that is to leave it as it was."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Tensors (bits, identity, flags), graph, generated code, and every attribute of every module.

    Two snapshots are equal only if the model is the same bit for bit.
    """
    taken: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        taken[f"{path} class"] = type(module)
        for name, thing in module.__dict__.items():
            if name in ("_parameters", "_buffers"):
                taken[f"{path} {name}"] = {k: (id(t), digest(t)) for k, t in thing.items()}
            elif name == "_modules":
                taken[f"{path} {name}"] = {k: id(m) for k, m in thing.items()}
            elif name != "_graph":
                taken[f"{path} {name}"] = digest(thing)
    if isinstance(model, fx.GraphModule):
        taken["graph"] = [
            (n.name, n.op, n.target, str(n.args), str(n.kwargs), digest(n.meta.get("val"))) for n in model.graph.nodes
        ]
        taken["code"] = model.code
        taken["meta"] = dict(model.meta)
    return taken


def contents(model: fx.GraphModule) -> dict[str, object]:
    """What two copies of a model have in common: code and the bits of all tensors."""
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return {"code": model.code, **{name: digest(tensor) for name, tensor in tensors.items()}}


def digest(thing: object) -> object:
    """A value that is equal for equal bits: of tensors in containers too."""
    if isinstance(thing, Tensor):
        return (str(thing.dtype), str(thing.device), thing.requires_grad, type(thing), *_bits(thing))
    if isinstance(thing, dict):
        return {k: digest(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [digest(item) for item in thing]
    return repr(thing)


def _bits(tensor: Tensor) -> tuple[object, ...]:
    if is_lazy(tensor):
        return ("uninitialised",)
    if tensor.is_meta:
        return tuple(tensor.shape), tensor.stride()
    if tensor.is_quantized:
        return tuple(tensor.shape), digest(tensor.dequantize()), tensor.qscheme()
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return tuple(tensor.shape), tensor.stride(), hashlib.sha256(flat.numpy().tobytes()).hexdigest()
