"""Inserts new blocks: builds and registers their modules, and adds their nodes to a copy of the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..capture.traced_model.guards import guards_of
from ..capture.user_objects.state_dict_hooks import STANDS_IN, user_of
from ..insertion.assemble import BESIDE, assemble
from ..plans import Plan
from ..plans.insertion import ENTRY, Copies, Insert
from .init_block import fill_block
from .new_values import generator

Undo = Callable[[], object]


def insert_blocks(
    gm: fx.GraphModule, graph: fx.Graph, nodes: Mapping[str, fx.Node], plan: Plan, undo: list[Undo]
) -> None:
    """Insert a plan's blocks into a graph that will become the model's; modules are registered immediately.

    Args:
        gm: the model.
        graph: a copy of its graph.
        nodes: the nodes of this copy, by their names in the model's graph.
        plan: the blocks to insert, and the seed of new values.
        undo: receives the functions that undo the registrations.
    """
    ends: dict[tuple[str, tuple[str, ...]], fx.Node] = {}
    ahead = {insert.node: guards_of(nodes[insert.node])[0] for insert in plan.inserts}
    consumers = {name: [n for n in nodes[name].users if n not in guards] for name, guards in ahead.items()}
    for name, guards in ahead.items():
        last = _after(graph, nodes[name], [])
        for guard in guards:  # guards run before the block, so that it never gets sizes that the trace does not cover
            last.append(guard)
            last = guard
    tensors = {**dict(gm.named_parameters(remove_duplicate=False)), **dict(gm.named_buffers(remove_duplicate=False))}
    for insert in plan.inserts:
        place = (insert.node, insert.users)
        entry = ends.get(place, nodes[insert.node])
        block = _made(gm, insert, tensors, nodes, plan)
        _register(gm, insert.name, block, undo)
        ends[place] = _write(graph, insert, block, entry, nodes, ahead[insert.node])
    for (node, users), end in ends.items():
        for consumer in consumers[node]:
            if not users or consumer.name in {nodes[u].name for u in users}:
                consumer.replace_input_with(nodes[node], end)


def _made(
    gm: fx.GraphModule, insert: Insert, tensors: Mapping[str, Tensor], nodes: Mapping[str, fx.Node], plan: Plan
) -> fx.GraphModule:
    """Build a block with its values, on the device and in the dtype of its neighbourhood."""
    like = tensors.get(insert.like)
    meta = like is not None and like.is_meta
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator(plan.seed, insert.name).get_state())
        block = assemble(insert.body, gm, meta=meta)
    if insert.dtype:
        block = block.to(dtype=getattr(torch, insert.dtype))
    elif like is not None and not isinstance(insert.body, Copies):
        block = block.to(dtype=like.dtype)
    if not meta:
        fill_block(block, insert, tensors, plan.seed, plan.init)
    if like is not None:
        block = block.to(device=like.device)
    return block.train(_training(gm, insert.node))


def _training(gm: fx.GraphModule, name: str) -> bool:
    """Return the training flag of the module that a node calls, or of the nearest module before it."""
    flag = gm.training
    for node in gm.graph.nodes:
        if node.op == "call_module":
            flag = gm.get_submodule(str(node.target)).training
        if node.name == name:
            return flag
    return flag


def _register(gm: fx.GraphModule, path: str, block: fx.GraphModule, undo: list[Undo]) -> None:
    """Add the block's modules and tensors to a container, as tracing would do."""
    above, _, name = path.rpartition(".")
    owner = gm.get_submodule(above)
    user = user_of(block)
    container = nn.Module() if user is None else user
    if user is not None:
        container.__dict__[STANDS_IN] = True
    container._parameters, container._buffers = block._parameters, block._buffers
    container._modules = block._modules
    container._non_persistent_buffers_set = block._non_persistent_buffers_set
    container.training = block.training
    undo.append(lambda: owner._modules.pop(name, None))
    owner.add_module(name, container)


def _write(
    graph: fx.Graph,
    insert: Insert,
    block: fx.GraphModule,
    entry: fx.Node,
    nodes: Mapping[str, fx.Node],
    guards: list[fx.Node],
) -> fx.Node:
    """Copy a block's nodes after its entry and the guards there, and return its result."""
    made: dict[fx.Node, fx.Node] = {}
    stem = insert.name.replace(".", "_")
    end = entry
    anchor = _after(graph, entry, [*guards[-1:], *(nodes[n.name.removeprefix(BESIDE)] for n in _shared(block))])
    for node in block.graph.nodes:
        if node.op == "placeholder":
            made[node] = entry if node.name == ENTRY or not made else nodes[node.name.removeprefix(BESIDE)]
            continue
        if node.op == "output":
            return made[node.args[0]]
        target: Any = f"{insert.name}.{node.target}" if node.op in ("call_module", "get_attr") else node.target
        args, kwargs = (fx.map_arg(tree, lambda n: made[n]) for tree in (node.args, node.kwargs))
        with graph.inserting_after(anchor):
            end = graph.create_node(node.op, target, args, kwargs, name=f"{stem}_{node.name}")
        end.meta = _meta(insert, block, node, entry)
        made[node] = anchor = end
    return end


def _shared(block: fx.GraphModule) -> list[fx.Node]:
    return [n for n in block.graph.nodes if n.op == "placeholder"][1:]


def _after(graph: fx.Graph, entry: fx.Node, others: list[fx.Node]) -> fx.Node:
    """Return the last of the nodes after which a block is inserted."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    last = max([entry, *others], key=order.__getitem__)
    while last.op == "placeholder" and last.next.op == "placeholder":
        last = last.next
    return last


def _meta(insert: Insert, block: fx.GraphModule, node: fx.Node, entry: fx.Node) -> dict[str, Any]:
    """Return the metadata of a block's node, so that the block has a module path like any other container."""
    above = insert.name.rpartition(".")[0]
    stack = dict(entry.meta.get("nn_module_stack") or {})
    kept = {k: v for k, v in stack.items() if above == str(v[0]) or above.startswith(f"{v[0]}.")}
    kept[insert.name] = (insert.name, nn.Module)
    meta = {"nn_module_stack": kept}
    if node.op == "call_module":
        path = f"{insert.name}.{node.target}"
        kept[path] = (path, type(block.get_submodule(str(node.target))))
    trace = node.meta.get("stack_trace") or node.stack_trace
    return {**meta, "stack_trace": trace} if trace else copy.copy(meta)
