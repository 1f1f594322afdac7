"""Models that fxgrow must not touch, told by name before anything is analysed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from ..errors import Kind, usage

_HOOKED = ("SpectralNorm", "WeightNorm")


def check_model(model: nn.Module) -> None:
    """Refuse models whose parameters are not what they seem.

    Raises:
        UsageError: a lazy module that has not seen data, a quantised module, or a parametrised one.
    """
    if not isinstance(model, nn.Module):
        raise usage(
            Kind.UNSUPPORTED_MODEL, f"{type(model).__name__} is no torch.nn.Module", hint="fxgrow.trace(nn_module)"
        )
    for path, module in model.named_modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if isinstance(module, torch.jit.ScriptModule):
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "a TorchScript module has no Python code left to trace",
                where=_where(path, module),
                hint="grow the module it was made from, then script the result",
            )
        if any(is_lazy(t) for t in tensors):
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "a lazy module has no shapes yet",
                where=_where(path, module),
                hint="run the model once on real data, then trace and grow it",
            )
        if ".quantized" in type(module).__module__ or any(t is not None and t.is_quantized for t in tensors):
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "a quantised module keeps packed integer weights, which cannot hold opposite halves",
                where=_where(path, module),
                hint="grow the float model, then quantise the result",
            )
        hooks = module._forward_pre_hooks.values()
        hooked = any(type(h).__name__ in _HOOKED or isinstance(h, BasePruningMethod) for h in hooks)
        if parametrize.is_parametrized(module) or hooked:
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "a parametrised weight (weight_norm, spectral_norm, prune …) is computed from others: new entries "
                "would change the old ones",
                where=_where(path, module),
                hint="remove it first: torch.nn.utils.parametrize.remove_parametrizations(module, 'weight'), or "
                "torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove",
            )


def _where(path: str, module: nn.Module) -> str:
    return f"{path or 'the model itself'} ({type(module).__name__})"


def check_root(model: nn.Module) -> None:
    """Refuse what torch.fx forgets of the model that it traces, and of no other module.

    Raises:
        UsageError: the model has hooks, or a `forward` of its own in the place of its class's.
    """
    name = type(model).__name__
    if model._forward_hooks or model._forward_pre_hooks:
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"torch.fx forgets the forward hooks of the model that it traces, and {name} has some",
            where="the model itself",
            hint="take them off before tracing, and register them on the traced model",
        )
    if "forward" in vars(model):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"torch.fx traces the `forward` of the class {name}, and this model's has been replaced",
            where="the model itself",
            hint="write the new `forward` in a subclass, or trace a module that holds this one",
        )


_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def check_hooks(model: nn.Module, gm: nn.Module, visited: Iterable[str]) -> None:
    """Carry hooks over from modules that the graph looks into, or refuse those that it cannot call.

    The model's own backward hooks and all state-dict hooks go to the traced model. Forward hooks of modules inside are
    traced like any other code.

    Raises:
        UsageError: a module inside that is not kept whole has a backward hook.
    """
    for path in sorted({"", *visited}):
        source = model.get_submodule(path)
        backward = {**source._backward_hooks, **source._backward_pre_hooks}
        if backward and path:
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                f"torch.fx looks into {path} and forgets its backward hooks",
                where=f"{path} ({type(source).__name__})",
                hint="take them off before tracing, or register them on the modules of torch.nn inside it",
            )
        target = _inside(gm, path)
        if target is None:
            continue
        if not path:
            target._backward_hooks.update(source._backward_hooks)
            target._backward_pre_hooks.update(source._backward_pre_hooks)
            target._is_full_backward_hook = source._is_full_backward_hook
        for name in _STATE_HOOKS:
            getattr(target, name).update(getattr(source, name))


def _inside(root: nn.Module, path: str) -> nn.Module | None:
    found: nn.Module | None = root
    for part in path.split(".") if path else ():
        found = found._modules.get(part) if found is not None else None
    return found
