"""Takes bit-exact snapshots of models, for checks that a call leaves a model unchanged."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return the tensors (bits, identity, flags), the graph, the code, and every attribute of every module.

    Two snapshots of a model are equal only if the model has not changed by a single bit.
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
    """Return what equal copies of a model share: the code and digests of all tensors."""
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return {"code": model.code, **{name: digest(tensor) for name, tensor in tensors.items()}}


def digest(thing: object) -> object:
    """Return a value that is equal for equal bits; also handles tensors in containers."""
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
