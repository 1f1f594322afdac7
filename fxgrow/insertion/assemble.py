"""Build the module and graph of an inserted block, on the meta device for the proof or with real tensors."""

from __future__ import annotations

import copy
import importlib
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, assert_never

import torch
from torch import Tensor, fx, nn

from ..capture.tracing.trace import trace
from ..errors import FxgrowError, Kind, usage
from ..global_state import SinglePrecision
from ..plans.insertion import ENTRY, Body, Copies, Factory, Layers, Link

BESIDE = "outer_"
"""Prefix of the placeholders for values that a copied block shares with the model."""


def assemble(body: Body, gm: fx.GraphModule, *, meta: bool) -> fx.GraphModule:
    """Build a block as a GraphModule of its own. Its first input is the block's input; the others are shared model
    values.

    Its tensors are on the meta device, or on the CPU with the default initialisation of their modules, which uses the
    global random state.

    Raises:
        UsageError: a user's factory fails, or does not return a valid block.
    """
    with torch.device("meta" if meta else "cpu"), SinglePrecision():
        match body:
            case Layers():
                return _layers(body)
            case Copies():
                return _copies(body, gm, meta)
            case Factory():
                return _made(body)
            case _:
                assert_never(body)


def outer(body: Body, gm: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes of the model, other than the block's input, whose values the block reads."""
    if not isinstance(body, Copies):
        return []
    inside = {source for _, source in body.nodes}
    nodes = [n for n in gm.graph.nodes if n.name in inside]
    read = dict.fromkeys(i for n in nodes for i in n.all_input_nodes)
    return [n for n in read if n.name not in inside and n.name != body.entry]


def _layers(body: Layers) -> fx.GraphModule:
    root = nn.Module()
    for part in body.parts:
        if part.kind == "Parameter":
            put(root, part.path, nn.Parameter(torch.tensor(dict(part.options)["value"])))
        else:
            put(root, part.path, getattr(nn, part.kind)(**dict(part.options)))
    graph = fx.Graph()
    made: dict[str, fx.Node] = {ENTRY: graph.placeholder(ENTRY)}
    for call in body.calls:
        target: Any = function(call.target) if call.op == "call_function" else call.target
        args, kwargs = _filled(call.args, made), _filled(dict(call.kwargs), made)
        made[call.name] = graph.create_node(call.op, target, args, kwargs, name=call.name)
    graph.output(made[body.calls[-1].name])
    return fx.GraphModule(root, graph)


def _filled(tree: Any, made: Mapping[str, fx.Node]) -> Any:
    if isinstance(tree, Link):
        return made[tree.name]
    if isinstance(tree, tuple):
        return tuple(_filled(item, made) for item in tree)
    if isinstance(tree, dict):
        return {k: _filled(v, made) for k, v in tree.items()}
    return tree


def function(text: str) -> Callable[..., Any]:
    """Import a function by its qualified name."""
    module, _, name = text.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _copies(body: Copies, gm: fx.GraphModule, meta: bool) -> fx.GraphModule:
    root = nn.Module()
    tensors = {id(t): t for t in (*gm.parameters(), *gm.buffers())}
    memo: dict[int, Any] = {k: _empty(t) for k, t in tensors.items()} if meta else {}
    for path, source in body.parts:
        module = copy.deepcopy(gm.get_submodule(source), memo)
        put(root, path, module)
        if body.afresh and not meta:
            for part in module.modules():
                getattr(part, "reset_parameters", getattr(part, "_reset_parameters", lambda: None))()
    for path, source in body.tensors:
        tensor: Any = reduce(getattr, source.split("."), gm)
        put(root, path, copy.deepcopy(tensor, memo), parameter=isinstance(tensor, nn.Parameter))
    graph = fx.Graph()
    made = {body.entry: graph.placeholder(ENTRY)}
    for node in outer(body, gm):
        made[node.name] = graph.placeholder(f"{BESIDE}{node.name}")
    inside = {source: name for name, source in body.nodes}
    paths = {source: path for path, source in (*body.parts, *body.tensors)}
    last = None
    for node in gm.graph.nodes:
        if node.name in inside:
            target = paths[str(node.target)] if node.op in ("call_module", "get_attr") else node.target
            args, kwargs = (fx.map_arg(tree, lambda n: made[n.name]) for tree in (node.args, node.kwargs))
            last = graph.create_node(node.op, target, args, kwargs, name=inside[node.name])
            last.meta = dict(node.meta)
            made[node.name] = last
    graph.output(last)
    return fx.GraphModule(root, graph)


def _empty(tensor: Tensor) -> Tensor:
    made = torch.empty_like(tensor, device="meta")
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _made(body: Factory) -> fx.GraphModule:
    try:
        module = body.build(body.channels)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # user code may raise anything
        raise usage(
            Kind.BAD_BLOCK,
            f"the block factory {body.text} fails on {body.channels} channels: {str(error).strip() or repr(error)}",
            hint="block= takes a class or function that is called with the number of channels and returns a module",
        ) from error
    if not isinstance(module, nn.Module):
        raise usage(
            Kind.BAD_BLOCK,
            f"the block factory {body.text} returns {type(module).__name__}, no torch.nn.Module",
            hint="block= takes a class or function that is called with the number of channels and returns a module",
        )
    try:
        traced = trace(module)
    except FxgrowError as error:
        r = error.refusal
        raise usage(Kind.BAD_BLOCK, f"the block that {body.text} makes: {r.what}", r.hint, r.where) from error
    places = [n for n in traced.graph.nodes if n.op == "placeholder"]
    if len(places) != 1:
        names = ", ".join(n.name for n in places)
        raise usage(
            Kind.BAD_BLOCK,
            f"the block that {body.text} makes takes {len(places)} inputs ({names})",
            hint="a block maps one tensor to one of the same shape",
        )
    if body.residual:
        output = traced.graph.output_node()
        if not isinstance(output.args[0], fx.Node):
            raise usage(
                Kind.BAD_BLOCK,
                f"the block that {body.text} makes returns {type(output.args[0]).__name__}, not one tensor",
                hint="a block maps one tensor to one of the same shape",
            )
        with traced.graph.inserting_before(output):
            total = traced.graph.call_function(operator.add, (places[0], output.args[0]))
        output.args = (total,)
        traced.recompile()
    return traced


def put(root: nn.Module, path: str, thing: nn.Module | Tensor, *, parameter: bool = True) -> None:
    """Register a module, parameter or buffer under a dotted path, creating containers as needed."""
    *above, name = path.split(".")
    for step in above:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    if isinstance(thing, nn.Module):
        root.add_module(name, thing)
    elif parameter:
        root.register_parameter(name, thing)  # type: ignore[arg-type]  # the caller passes a parameter
    else:
        root.register_buffer(name, thing)
