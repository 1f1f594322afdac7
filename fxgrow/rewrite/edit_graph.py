"""Edits an fx graph: constants, statistics over grown axes, and skip adapters, in a copy of the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx, nn

from ..capture.decomposition.inline_calls import decompose_nodes
from ..functional import adapt_skip
from ..plans import NodeEdit, Plan, SkipEdit
from ..plans.plan import FOLLOWED, RECOMPUTED, SPLIT, STATISTIC
from ..rules.mixing import MULTIPLIED
from .edit_numbers import Numbers, replaced
from .insert_blocks import insert_blocks
from .new_values import generator

Undo = Callable[[], object]
_CONVOLUTIONS: dict[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def edit_graph(gm: fx.GraphModule, plan: Plan, undo: list[Undo]) -> fx.Graph:
    """Return a copy of a model's graph with a plan's edits; modules of adapters are added to the model."""
    graph, added = opened_graph(gm, plan)
    for name, module in added.items():
        undo.append(lambda name=name: gm._modules.pop(name, None))  # type: ignore[misc]  # binds the loop variable early
        gm.add_submodule(name, module)
    nodes = {node.name: node for node in graph.nodes}
    numbers = Numbers(nodes)
    for edit in plan.nodes:
        if edit.path[:1] in ((FOLLOWED,), (RECOMPUTED,)):
            numbers.edit(edit)
        else:
            _edit_node(nodes[edit.node], edit)
    numbers.clear()
    for skip in plan.skips:
        _adapt(gm, graph, nodes, skip, plan, undo)
    insert_blocks(gm, graph, nodes, plan, undo)
    graph.lint()
    return graph


def opened_graph(gm: fx.GraphModule, plan: Plan) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Return a copy of a model's graph in which the calls that a plan decomposes are decomposed, so that the graph has
    the nodes that the other edits name; and the modules to add to the model for it, by name."""
    graph = fx.Graph(owning_module=gm, tracer_cls=gm.graph._tracer_cls)
    output = graph.graph_copy(gm.graph, {})
    old_output = next(n for n in gm.graph.nodes if n.op == "output")
    new_output = graph.output(output)
    new_output.meta = dict(old_output.meta)
    graph.set_codegen(gm.graph._codegen)
    return graph, decompose_nodes(gm, graph, plan.openings)


def _edit_node(node: fx.Node, edit: NodeEdit) -> None:
    if edit.path == (SPLIT,):
        sizes, dim = cast(tuple[tuple[int, ...], int], edit.new)
        source = node.all_input_nodes[0]
        node.op, node.target, node.args, node.kwargs = "call_function", torch.split, (source, list(sizes), dim), {}
        return
    if edit.path == (STATISTIC,):
        _pin(node, cast(tuple[str, tuple[int, ...], bool, float], edit.new))
        return
    whole: dict[str, Any] = {"args": node.args, "kwargs": node.kwargs}
    changed = replaced(whole, edit.path, edit.new)
    node.args, node.kwargs = changed["args"], changed["kwargs"]


def _pin(node: fx.Node, edit: tuple[str, tuple[int, ...], bool, float]) -> None:
    """Keep the divisor of a mean, a norm or a variance as it was before growth."""
    family, axes, keep, number = edit
    if family not in MULTIPLIED:
        node.op, node.target = "call_function", getattr(torch, family)
        options: dict[str, Any] = {"dim": list(axes) or None, "correction": number, "keepdim": keep}
        node.args, node.kwargs = (node.all_input_nodes[0],), options
        return
    users = list(node.users)
    if len(users) == 1 and users[0].target is operator.mul and isinstance(users[0].args[1], float):
        users[0].args = (node, users[0].args[1] * number)  # an earlier growth added this factor
        return
    with node.graph.inserting_after(node):
        pinned = node.graph.call_function(operator.mul, (node, 1.0))
    pinned.meta = dict(node.meta)
    node.replace_all_uses_with(pinned)
    pinned.args = (node, number)


def _adapt(
    gm: fx.GraphModule, graph: fx.Graph, nodes: dict[str, fx.Node], skip: SkipEdit, plan: Plan, undo: list[Undo]
) -> None:
    consumer = nodes[skip.node]
    source = _present(consumer, nodes[skip.source], skip.position)
    with graph.inserting_before(consumer):
        if skip.kind == "pad":
            adapter = graph.call_function(
                adapt_skip, (source, skip.axis, skip.keep, skip.pairs, skip.width, skip.copies)
            )
        else:
            name = _free_name(gm, f"adapt_skip_{skip.node}")
            undo.append(lambda: gm._modules.pop(name, None))
            gm.add_submodule(name, _convolution(gm, skip, f"{name}.weight", plan))
            adapter = graph.call_module(name, (source,))
    adapter.meta = {k: consumer.meta[k] for k in ("nn_module_stack", "stack_trace") if k in consumer.meta}
    if skip.position < len(consumer.args):
        consumer.update_arg(skip.position, adapter)
    else:
        consumer.update_kwarg("other", adapter)


def _present(consumer: fx.Node, source: fx.Node, position: int) -> fx.Node:
    """Return the value that a consumer uses for a source: the source, or its rescaled multiple from an earlier edit."""
    read = consumer.args[position] if position < len(consumer.args) else consumer.kwargs.get("other")
    pinned = isinstance(read, fx.Node) and read.target is operator.mul and read.args[0] is source
    return read if pinned and isinstance(read, fx.Node) else source


def _free_name(gm: nn.Module, wanted: str) -> str:
    name, count = wanted, 0
    while hasattr(gm, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def _convolution(gm: nn.Module, skip: SkipEdit, name: str, plan: Plan) -> nn.Module:
    """Make a 1x1 convolution: the identity on old channels, +φ on left halves and −φ on right halves, 0 elsewhere."""
    like = next(gm.parameters())
    kind = _CONVOLUTIONS.get(skip.rank)
    if kind is not None and skip.axis == 1:
        module: nn.Module = kind(skip.read, skip.width, 1, bias=False, device="meta")
    else:
        module = nn.Linear(skip.read, skip.width, bias=False, device="meta")
    weight = torch.zeros(skip.width, skip.read, dtype=torch.float32)
    keep = range(min(skip.keep, skip.width))
    weight[keep, keep] = 1.0
    random = generator(plan.seed, name)
    for start, count in skip.pairs:
        bound = (3 / skip.read) ** 0.5
        drawn = torch.rand(min(skip.keep, skip.width), count, generator=random, dtype=torch.float32)
        phi = (drawn * 2 - 1) * bound
        weight[: phi.shape[0], start : start + 2 * count : 2] = phi
        weight[: phi.shape[0], start + 1 : start + 2 * count : 2] = -phi
    for channel, original in skip.copies:
        weight[channel] = weight[original]
    shape = (skip.width, skip.read, *([1] * (skip.rank - 2))) if kind is not None and skip.axis == 1 else weight.shape
    module.weight = nn.Parameter(weight.reshape(shape).to(device=like.device, dtype=like.dtype))
    return module.train(gm.training)
