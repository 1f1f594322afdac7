"""Checks that refuse models and modules that fxgrow does not support, each with the reason and a way out."""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.optim.swa_utils import AveragedModel

from ...errors import Kind, usage
from ..source_lines import user_frame
from ..user_objects.code_traits import differs_when_compiled
from ..user_objects.compiled import is_compiled, original
from .traced import written_by_train

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_HOOKED = ("SpectralNorm", "WeightNorm")


def check_model(model: nn.Module) -> None:
    """Refuse models whose parameters cannot be grown as they are.

    Raises:
        UsageError: the model is not an nn.Module, is a wrapper, or contains a TorchScript, lazy, quantised or
            parametrised module.
    """
    if not isinstance(model, nn.Module):
        raise usage(
            Kind.UNSUPPORTED_MODEL, f"{type(model).__name__} is no torch.nn.Module", hint="fxgrow.trace(nn_module)"
        )
    check_wrapper(model)
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


def check_wrapper(model: nn.Module) -> None:
    """Refuse models that only wrap another one (torch.compile, DataParallel), and name the model to pass instead.

    Raises:
        UsageError: the model is such a wrapper, or torch.compile has wrapped a module in it.
    """
    for path, module in model.named_modules():
        if "_orig_mod" in module._modules:
            place = ".".join(filter(None, ["model", path]))
            hint = f"set {place} = {place}._orig_mod before tracing" if path else _way_inside(module, "_orig_mod")
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "torch.compile has replaced a module by one that runs compiled code, which torch.fx cannot trace",
                where=_where(path, module),
                hint=f"{hint}, and compile the grown model",
            )
    name = type(model).__name__
    if isinstance(model, _WRAPPERS):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"{name} only calls the model inside it, with whatever it is given, which torch.fx cannot trace",
            where="the model itself",
            hint=f"{_way_inside(model, next(iter(model._modules)))}, and wrap the grown one",
        )


def _way_inside(model: nn.Module, name: str) -> str:
    """Return a hint that says how to pass the model that a wrapper holds as its submodule `name`."""
    if isinstance(getattr(model, name), fx.GraphModule):
        return f"pass the traced model inside, model.{name}"
    return f"trace the model inside, fxgrow.trace(model.{name}, …)"


def _where(path: str, module: nn.Module) -> str:
    """Return the path and the class of a module, for messages."""
    return f"{path or 'the model itself'} ({type(module).__name__})"


def check_train(model: nn.Module) -> None:
    """Refuse a user-defined `train` method that changes tensors each time it is called.

    Raises:
        UsageError: it does; setting the mode of the traced model would not change them.
    """
    written = written_by_train(model, model.training)
    if written:
        mode, names = "train()" if model.training else "eval()", ", ".join(written[:3])
        raise usage(
            Kind.NOT_TRACEABLE,
            f"{mode} of {type(model).__name__} changes {names} each time that it is called, and that of the traced "
            "model would not",
            hint="let train() set flags, and write to tensors in forward or in a method of another name",
        )


def check_compiled(model: nn.Module) -> None:
    """Refuse models whose compiled code may differ from the eager code, which is the code that is traced.

    Raises:
        UsageError: some code asks whether torch.compile compiles it.
    """
    if differs_when_compiled(model):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"code of {type(model).__name__} asks torch.compiler.is_compiling(), and torch.compile compiles a part of "
            "the model: the eager code, which is traced, may compute something else",
            hint="trace a model that is not compiled, and compile the grown one: copy.deepcopy(model) undoes "
            "module.compile(); take torch.compile off functions",
        )


def check_root(model: nn.Module) -> None:
    """Refuse a model with features that torch.fx drops from the root module of a trace.

    Raises:
        UsageError: the model has forward hooks, or its `forward` has been replaced on the instance.
    """
    name = type(model).__name__
    if model._forward_hooks or model._forward_pre_hooks:
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"torch.fx forgets the forward hooks of the model that it traces, and {name} has some",
            where="the model itself",
            hint="take them off before tracing, and register them on the traced model",
        )
    if has_other_forward(model):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"torch.fx traces the `forward` of the class {name}, and this model's has been replaced",
            where="the model itself",
            hint="write the new `forward` in a subclass, or trace a module that holds this one",
        )


def check_forward(gm: fx.GraphModule) -> None:
    """Refuse a traced model if its `forward`, or that of a module that its graph calls, has since been replaced.

    Raises:
        UsageError: a `forward` has been replaced on the instance after tracing.
    """
    if "forward" in vars(gm) and (has_other_forward(gm) or is_compiled(vars(gm)["forward"])):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            "the `forward` of the traced model has been replaced on the instance, and a grown model would run the "
            "graph",
            where="the model itself",
            hint="`del model.forward`, or write the new `forward` in a module and trace that; call `.compile()` of the "
            "grown model to compile it",
        )
    check_called(gm, gm.graph)


def has_other_forward(module: nn.Module) -> bool:
    """Whether the `forward` of a module has been replaced on the instance, by anything but its own compiled version."""
    own = original(vars(module).get("forward"))
    same = isinstance(own, MethodType) and own.__self__ is module and own.__func__ is type(module).forward
    return own is not None and not same


def check_called(model: nn.Module, graph: fx.Graph) -> None:
    """Refuse modules called by a graph whose `forward` has been replaced on the instance.

    A grown copy would still call the original module. In modules that are traced into, the trace has followed the new
    `forward`.

    Raises:
        UsageError: there is such a module.
    """
    for path in dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module"):
        for inner, module in model.get_submodule(path).named_modules():
            full = f"{path}.{inner}" if inner else path
            if is_compiled(vars(module).get("forward")):
                raise usage(
                    Kind.UNSUPPORTED_MODEL,
                    f"{full}.forward has been replaced by a compiled function on the instance, and a grown copy of "
                    f"{full} would call the layer that it was made from",
                    where=f"{full} ({type(module).__name__})",
                    hint=f"del {full}.forward before tracing, and call {full}.compile() of the grown model",
                )
            if has_other_forward(module):
                raise usage(
                    Kind.UNSUPPORTED_MODEL,
                    f"the `forward` of {full} has been replaced on the instance, and a grown copy of {full} would call "
                    "the layer that it was made from",
                    where=f"{full} ({type(module).__name__})",
                    hint=f"write the new `forward` in a subclass of {type(module).__name__}, or change the result with "
                    f"{full}.register_forward_hook",
                )


def check_made(model: nn.Module, traced: nn.Module, graph: fx.Graph) -> None:
    """Refuse modules, parameters and buffers that `forward` creates on the first call: each trace would create others.

    Args:
        model: the user's model.
        traced: the copy of it that was traced, which has them.
        graph: the graph of that trace.

    Raises:
        UsageError: the graph reads or calls one that the model does not have.
    """
    for node in graph.nodes:
        path = str(node.target)
        if node.op not in ("call_module", "get_attr") or _at(model, path) is not None:
            continue
        if node.op == "get_attr" and path in vars(traced):  # a constant
            continue
        parts = path.split(".")
        prefixes = (".".join(parts[: k + 1]) for k in range(len(parts)))
        path = next(prefix for prefix in prefixes if _at(model, prefix) is None)
        made = _at(traced, path)
        kind = "a tensor" if isinstance(made, fx.Proxy) else type(made).__name__
        raise usage(
            Kind.NOT_TRACEABLE,
            f"forward makes {path} ({kind}) on the first call, and the model does not have it yet",
            where=user_frame(node.stack_trace or "") or path,
            hint="run the model once before tracing: model(*example_inputs); or make it in __init__",
        )


def check_hooks(model: nn.Module, gm: nn.Module, visited: Iterable[str]) -> None:
    """Copy the model's own backward hooks to the traced model, and refuse hooks that the graph cannot call.

    Forward hooks of inner modules are traced like any other code; `carry` copies the state-dict hooks.

    Raises:
        UsageError: an inner module that is not kept whole has a backward hook.
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
    gm._backward_hooks.update(model._backward_hooks)
    gm._backward_pre_hooks.update(model._backward_pre_hooks)
    gm._is_full_backward_hook = model._is_full_backward_hook


def _at(root: nn.Module, path: str) -> Any:
    """Return what a module holds at a path; None if there is nothing."""
    thing: Any = root
    for part in path.split(".") if path else ():
        thing = getattr(thing, part, None)
    return thing
