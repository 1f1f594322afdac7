"""Faults of the writer: values that are not what the plan says, edits that are wrong or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

import fxgrow.rewrite.edit_graph as graph
import fxgrow.rewrite.init_block as fresh
import fxgrow.rewrite.insert_blocks as insert
from fxgrow.plans import Plan, TensorEdit
from fxgrow.plans.layout import Leaf
from fxgrow.rewrite import new_values as values
from fxgrow.rewrite.apply import tensors_of

from .lies import Plant
from .ways import (
    Planted,
    behind,
    changed,
    edited,
    forgotten,
    halves,
    refilled,
    relaid,
    replaced,
    restated,
    without,
    writer,
)


def _shares(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    old(tensor, axis, replace(leaf, state="copy") if leaf.state == "split" else leaf, places)


def _neighbours(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    moved = tuple((u + 1) % leaf.old for u in leaf.source) if leaf.state == "copy" else leaf.source
    old(tensor, axis, replace(leaf, source=moved), places)


def _sum_for_mean(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    old(tensor, axis, leaf, places)
    if leaf.state == "mean":
        new = torch.tensor([p for unit in range(leaf.old, leaf.new) for p in places[unit]])
        tensor.index_copy_(axis, new, tensor.index_select(axis, new) * leaf.old)


def _one_less(old: type[Counter[int]], source: tuple[int, ...]) -> dict[int, int]:
    return {unit: count - (count > 1) for unit, count in old(source).items()}


def _noisy(old: Callable[..., Tensor], tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    return old(tensor * (1 + 1e-6), *args, **options)


def _same_model(old: Callable[..., fx.GraphModule], gm: fx.GraphModule, *rest: Any) -> fx.GraphModule:
    return gm


def _untied(old: Callable[..., None], plan: Plan, gm: fx.GraphModule, *rest: Any) -> None:
    old(plan, gm, *rest)
    seen = set[int]()
    for name, tensor in tensors_of(gm).items():
        if id(tensor) in seen:
            path, _, leaf = name.rpartition(".")
            setattr(gm.get_submodule(path), leaf, nn.Parameter(tensor.detach().clone()))
        seen.add(id(tensor))


def _seed(old: Callable[[str], Plan], text: str) -> Plan:
    plan = old(text)
    return replace(plan, seed=plan.seed + 1)


def _noop(old: Callable[..., None], *args: Any) -> None:
    return None


def _one_sign(old: Callable[..., nn.Module], *args: Any) -> nn.Module:
    module = old(*args)
    weight: Any = module.weight
    module.weight = nn.Parameter(weight.detach().abs())
    return module


def _not_joined(old: Callable[..., fx.Node], graph: fx.Graph, *rest: Any) -> fx.Node:
    end = old(graph, *rest)
    entry = rest[2]
    if end.op == "call_function" and entry in end.args:  # x + F(x)
        end.args = tuple(a for a in end.args if a is not entry) * 2
    return end


def _pairs(by: int) -> Plant:
    """Pairs of a skip path are looked for elsewhere."""
    return edited(
        lambda p: replace(p, skips=tuple(replace(s, pairs=tuple((at + by, n) for at, n in s.pairs)) for s in p.skips))
    )


def _named(edit: TensorEdit, *parts: str) -> bool:
    return any(part in name for part in parts for name in edit.names)


def _without_attribute(*names: str) -> Plant:
    """Some attributes of modules stay."""

    def plan(old: Plan) -> Plan:
        some = (replace(m, attributes=tuple(a for a in m.attributes if a[0] not in names)) for m in old.modules)
        return replace(old, modules=tuple(m for m in some if m.attributes))

    return edited(plan)


def _formless(old: Callable[..., Tensor], tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)


def _one_stream(old: Callable[..., torch.Generator], *names: Any) -> torch.Generator:
    return old(0)


VALUES: Planted = {
    "padding rows are drawn": (changed(lambda edit: replace(edit, padding=())), ("padding",)),
    "memory formats are lost": (replaced(values, "like", _formless), ("channels last",)),
    "new weights are dead": (replaced(values, "spread", lambda old, *_: 0.0), ("convolutions",)),
    "all tensors get the same values": (replaced(values, "generator", _one_stream), ("grouped convolution",)),
    "odd halves are equal": (restated(odd="even"), ("convolutions",)),
    "even halves are opposite": (restated(even="odd"), ("convolutions",)),
    "odd halves are anything": (restated(odd="free"), ("convolutions",)),
    "even halves are anything": (restated(even="free"), ("convolutions",)),
    "zeros are anything": (restated(zero="free"), ("convolutions",)),
    "means are zeros": (restated(mean="zero"), ("layer norm",)),
    "copies are zeros": (restated(copy="zero"), ("convolutions",)),
    "a unit without a twin is anything": (
        halves(lambda left, right, lone: (left, right, []), "odd"),
        ("convolutions",),
    ),
    "right halves change places": (
        halves(lambda left, right, lone: (left, right[1:] + right[:1], lone), "odd"),
        ("grouped convolution",),
    ),
    "new units lie behind all groups, heads and gates": (relaid(behind), ("grouped convolution",)),
    "new units lie behind all gates": (
        relaid(behind, lambda edit: _named(edit, "weight_ih", "weight_hh", "bias_")),
        ("lstm", "gru"),
    ),
    "new units lie behind all heads": (relaid(behind, lambda edit: _named(edit, "q", "k", "v")), ("attention",)),
    "copies are not shared out": (replaced(values, "_work_out", _shares), ("convolutions",)),
    "copies are counted one too few": (replaced(values, "Counter", _one_less), ("cat",)),
    "copies are of the wrong unit": (replaced(values, "_work_out", _neighbours), ("convolutions",)),
    "a mean is a sum": (replaced(values, "_work_out", _sum_for_mean), ("layer norm",)),
    "old entries change by a millionth": (replaced(writer, "grown", _noisy), ("convolutions",)),
    "the scale of a norm stays": (changed(lambda edit: replace(edit, scale=1.0)), ("layer norm",)),
    "running statistics are forgotten": (forgotten(lambda edit: _named(edit, "running")), ("convolutions",)),
    "biases are forgotten": (forgotten(lambda edit: _named(edit, "bias")), ("convolutions",)),
    "a tied weight is missed": (replaced(writer, "_commit", _untied), ("tied, layer norm",)),
}
EDITS: Planted = {
    "numbers in the graph stay": (without("nodes"), ("attention by hand",)),
    "a scale, a divisor is not pinned": (
        edited(lambda p: replace(p, nodes=tuple(e for e in p.nodes if not isinstance(e.new, float)))),
        ("attention", "attention by hand"),
    ),
    "an epsilon is not pinned": (_without_attribute("eps"), ("layer norm", "rms norm")),
    "attributes of modules stay": (without("modules"), ("grouped convolution",)),
    "the size of recurrent layers stays": (_without_attribute("hidden_size"), ("lstm",)),
    "the number of groups stays": (_without_attribute("groups", "num_groups"), ("grouped convolution", "group norm")),
    "skip paths are not adapted": (without("skips"), ("shortcut",)),
    "a skip path is cut short": (
        edited(lambda p: replace(p, skips=tuple(replace(s, keep=s.keep - 1) for s in p.skips))),
        ("shortcut",),
    ),
    "a skip path takes the pairs before": (_pairs(-1), ("shortcut",)),
    "a skip path takes the pairs behind": (_pairs(1), ("shortcut",)),
    "halves enter an adapter with one sign": (replaced(graph, "_convolution", _one_sign), ("shortcut",)),
    "attention is not written out": (without("openings"), ("multihead attention",)),
    "the model itself is written": (replaced(writer, "_copy", _same_model), ("convolutions",)),
    "a plan from text has another seed": (replaced(Plan, "from_json", _seed), ("convolutions",)),
}
BLOCKS: Planted = {
    "blocks are not inserted": (without("inserts"), ("deeper",)),
    "a block takes the place of its input": (replaced(insert, "_write", _not_joined), ("deeper",)),
    "halves of a block are anything": (replaced(fresh, "_halve", _noop), ("deeper",)),
    "opposite halves of a block are equal": (
        relaid(lambda x: replace(x, state="even") if isinstance(x, Leaf) else x, lambda edit: False),
        ("deeper",),
    ),
    "zeros of a block are drawn": (
        refilled(lambda new: replace(new, fill="draw") if new.fill == "zero" else new),
        ("deeper",),
    ),
    "zeros of a block are as its modules made them": (
        refilled(lambda new: replace(new, fill="keep") if new.fill == "zero" else new),
        ("deeper",),
    ),
    "an identity is drawn": (replaced(fresh, "_identity", _noop), ("deeper", "factored")),
    "the factor of a layer is drawn": (
        refilled(lambda new: replace(new, fill="draw") if new.fill == "isometry" else new),
        ("factored",),
    ),
    "a norm that is the identity keeps its statistics": (
        refilled(lambda new: replace(new, fill="keep") if new.name.endswith("running_var") else new),
        ("deeper",),
    ),
}
WRITTEN: Planted = {**VALUES, **EDITS, **BLOCKS}
"""By what is wrong: how it is planted, and the subjects that should show it first."""
