"""Tracing: from a module to an fx graph that follows `training`, keeps every parameter, and knows its source lines."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import Kind, usage
from .checks import check_model
from .inputs import as_tuple

logger = logging.getLogger("fxgrow")

_DROPOUTS: dict[Any, type[nn.Module]] = {
    nn.functional.dropout: nn.Dropout,
    nn.functional.dropout1d: nn.Dropout1d,
    nn.functional.dropout2d: nn.Dropout2d,
    nn.functional.dropout3d: nn.Dropout3d,
    nn.functional.alpha_dropout: nn.AlphaDropout,
}


class GrowthTracer(fx.Tracer):
    """fx's tracer, with source lines on nodes and stochastic modules (drop path …) kept whole, so that they go on
    following `training`."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """torch's own modules, and modules without parameters that look at `training`."""
        if super().is_leaf_module(m, module_qualified_name):
            return True
        if next(m.parameters(), None) is not None or next(m.children(), None) is not None:
            return False
        code = getattr(type(m).forward, "__code__", None)
        return code is not None and "training" in code.co_names


def trace(
    model: nn.Module,
    example_inputs: Sequence[Any] | None = None,
    *,
    concrete_args: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """Trace a model with torch.fx, ready to be grown.

    Args:
        model: any module; it is not changed. A GraphModule comes back as it is.
        example_inputs: tensors with the shapes that the model takes; kept in the graph's metadata for the analysis,
            and the number of them decides which arguments of `forward` are inputs.
        concrete_args: values for other arguments of `forward`. Arguments with plain defaults (flags, numbers, None)
            are specialised to them, so that `if flag:` does not stop the trace.

    Returns:
        A GraphModule that shares the model's parameters. Functional dropout follows `training`. Parameters that the
        graph does not use are kept; `result.meta["fxgrow_unused"]` lists them.

    Raises:
        UsageError: the model cannot be traced (the message names the line), or must not be grown (lazy, quantised,
            parametrised).
    """
    if isinstance(model, fx.GraphModule):
        if example_inputs is not None:
            _remember(model, example_inputs)
        return model
    check_model(model)
    concrete = _concrete(model, example_inputs, concrete_args or {})
    attributes = set(model.__dict__)
    other = _in_other_mode(model, concrete)
    _forget_constants(model, attributes)
    graph = _traced(model, concrete)
    follow = _flags_that_follow(graph, other)
    gm = fx.GraphModule(model, graph, type(model).__name__)
    gm.train(model.training)
    _forget_constants(model, attributes)
    if follow is None:
        logger.warning(
            "%s has different graphs in training and evaluation mode; this trace is of %s mode",
            type(model).__name__,
            "training" if model.training else "evaluation",
        )
    else:
        _make_dropout_follow(gm, follow)
    _drop_concrete(gm, concrete)
    unused = _keep_unused(gm, model)
    if unused:
        gm.meta["fxgrow_unused"] = unused
        logger.info("kept although the graph does not use them: %s", ", ".join(unused))
    for name, module in gm.named_modules():
        if name:
            original = dict(model.named_modules()).get(name)
            module.training = original.training if original is not None else model.training
    if example_inputs is not None:
        _remember(gm, example_inputs)
    gm.recompile()
    return gm


def _forget_constants(model: nn.Module, attributes: set[str]) -> None:
    """Remove what fx leaves on the model itself: tensors that `forward` made while it was traced."""
    for name in set(model.__dict__) - attributes:
        delattr(model, name)


def _traced(model: nn.Module, concrete: Mapping[str, Any]) -> fx.Graph:
    try:
        return GrowthTracer().trace(model, concrete_args=dict(concrete) or None)
    except Exception as error:  # user code runs here; whatever it raises becomes one message with its line
        raise usage(
            Kind.NOT_TRACEABLE,
            f"torch.fx cannot trace {type(model).__name__}: {(str(error).strip() or repr(error)).splitlines()[0]}",
            where=_user_line(error),
            hint="fix a flag with concrete_args={'name': value}, keep the branch in a function under torch.fx.wrap, "
            "or trace and grow the submodules that can be traced",
        ) from error


def _user_line(error: Exception) -> str:
    """The last line of the traceback that is not torch's own."""
    torch_root = torch.__file__.rsplit("/", 1)[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(torch_root)]
    frames = [f for f in frames if f.filename != __file__ and "<eval" not in f.filename]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}, in {last.name}:  {last.line}"


def _concrete(model: nn.Module, examples: Sequence[Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `forward` that the graph does not take."""
    parameters = inspect.signature(model.forward).parameters
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise usage(
            Kind.BAD_OPTION,
            f"forward of {type(model).__name__} has no argument {unknown[0]!r}",
            hint=f"its arguments are {', '.join(parameters)}",
        )
    plain = (bool, int, float, str, type(None))
    inputs = 0 if examples is None else len(as_tuple(examples))
    concrete = {}
    for k, (name, parameter) in enumerate(parameters.items()):
        if name in given:
            concrete[name] = given[name]
        elif parameter.default is not inspect.Parameter.empty and k >= inputs and isinstance(parameter.default, plain):
            concrete[name] = parameter.default
    return concrete


def _in_other_mode(model: nn.Module, concrete: Mapping[str, Any]) -> fx.Graph | None:
    """The graph in the other mode; None if it cannot be traced there. Flags are put back as they were."""
    flags = [(m, m.training) for m in model.modules()]
    try:
        for m, flag in flags:
            m.training = not flag
        return GrowthTracer().trace(model, concrete_args=dict(concrete) or None)
    except Exception:  # the other mode may well be untraceable; the mode that was asked for is not
        return None
    finally:
        for m, flag in flags:
            m.training = flag


def _flags_that_follow(graph: fx.Graph, other: fx.Graph | None) -> list[str] | None:
    """Names of nodes whose arguments differ between the modes only in a flag; None if the graphs differ otherwise."""
    if other is None:
        return None
    ours, theirs = list(graph.nodes), list(other.nodes)
    if [(n.op, str(n.target)) for n in ours] != [(n.op, str(n.target)) for n in theirs]:
        return None
    return [
        a.name
        for a, b in zip(ours, theirs, strict=True)
        if repr(a.args) != repr(b.args) or repr(a.kwargs) != repr(b.kwargs)
    ]


def _make_dropout_follow(gm: fx.GraphModule, nodes: list[str]) -> None:
    """Put nn.Dropout in the place of functional dropout whose flag was baked in."""
    fixed: list[str] = []
    for node in list(gm.graph.nodes):
        if node.name not in nodes or node.op != "call_function":
            continue
        kind = _DROPOUTS.get(node.target)
        if kind is None:
            fixed.append(node.name)
            continue
        p = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
        name, count = f"{node.name}_module", 0
        while hasattr(gm, name):
            count += 1
            name = f"{node.name}_module_{count}"
        gm.add_submodule(name, kind(p).train(gm.training))
        with gm.graph.inserting_before(node):
            source = node.args[0] if node.args else node.kwargs["input"]
            call = gm.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        gm.graph.erase_node(node)
    if fixed:
        logger.warning("tracing fixed the training flag of %d node(s): %s …", len(fixed), fixed[0])


def _drop_concrete(gm: fx.GraphModule, concrete: Mapping[str, Any]) -> None:
    """Remove the placeholders of specialised arguments and the checks that fx made of them."""
    if not concrete:
        return
    for node in [n for n in gm.graph.nodes if n.op == "placeholder"]:
        base = str(node.target).rpartition("_")[0]
        if base not in concrete and str(node.target) not in concrete:
            continue
        for user in list(node.users):
            for check in list(user.users):
                gm.graph.erase_node(check)
            gm.graph.erase_node(user)
        gm.graph.erase_node(node)


def _keep_unused(gm: fx.GraphModule, model: nn.Module) -> tuple[str, ...]:
    """Put back submodules that the graph does not call, so that no parameter is lost."""
    have = {*dict(gm.named_parameters(remove_duplicate=False)), *dict(gm.named_buffers(remove_duplicate=False))}
    lost = []
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        if name in have:
            continue
        lost.append(name)
        path, _, leaf = name.rpartition(".")
        owner: nn.Module = gm
        source: nn.Module = model
        for part in path.split(".") if path else []:
            source = source.get_submodule(part)
            if part not in owner._modules:
                owner.add_module(part, _bare(source))
            owner = owner.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            persistent = leaf not in source._non_persistent_buffers_set
            owner.register_buffer(leaf, tensor, persistent=persistent)
    return tuple(lost)


def _bare(module: nn.Module) -> nn.Module:
    """A module of the same class where the whole of it is unused, to be filled again with its own tensors."""
    if type(module).__module__.startswith("torch.nn"):
        twin = module.__class__.__new__(module.__class__)
        twin.__dict__ = dict(module.__dict__)
        for group in ("_parameters", "_buffers", "_modules"):
            twin.__dict__[group] = dict.fromkeys(module.__dict__[group])
        return twin
    return nn.Module().train(module.training)


def _remember(gm: fx.GraphModule, examples: Sequence[Any] | torch.Tensor) -> None:
    values = as_tuple(examples)
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    if len(values) != len(places):
        names = ", ".join(p.name for p in places)
        raise usage(
            Kind.BAD_INPUTS,
            f"the model takes {len(places)} inputs ({names}), example_inputs holds {len(values)}",
            hint="pass one value for each, in order",
        )
    for place, value in zip(places, values, strict=True):
        if isinstance(value, torch.Tensor):
            place.meta["val"] = torch.empty(value.shape, dtype=value.dtype, device="meta")
