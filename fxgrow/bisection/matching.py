"""Matches the nodes of two graphs that carry the same value."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import fx

from ..functional import adapt_skip
from ..verification.follow import Found
from ..verification.old_units import Places

WRITTEN_OUT = (torch.split, torch.var, torch.std, torch.var_mean, torch.std_mean)
"""The functions by which a growth replaces chunks of unequal size, and statistics over units that grew."""


@dataclass(frozen=True, slots=True)
class Match:
    """A node of the grown graph and the node with the same value before growth; for a new node, the node it
    replaces."""

    after: str
    before: str
    new: bool
    adapter: bool
    """Whether the node adapts a skip path: then old units come first, followed by any number of new ones."""
    output: bool
    """Whether the node is the model's output, which has the same channels as before."""
    places: tuple[Places, ...] | None
    """The positions of old units in each tensor; None: they come first, as far as shapes allow."""


def matches(
    before: fx.GraphModule, after: fx.GraphModule, places: Found | None, checked: Set[str], rescaled: Set[str]
) -> list[Match]:
    """Return the pairs of nodes that carry the same value, in execution order.

    Args:
        before: the model before growth.
        after: the grown model; old nodes keep their names.
        places: the positions of old units for each node that all growths kept; None if unknown, so names decide.
        checked: nodes for which the name is not enough; their inputs must match too.
        rescaled: means over units that grew; a new node after each rescales it to its old value.
    """
    old = {n.name: n for n in before.graph.nodes if places is None or n.name in places or n.op == "output"}
    stand_ins: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for node in after.graph.nodes:
        twin_of = old.get(node.name)
        if twin_of is None or not _alike(twin_of, node):
            continue
        operands = _operands(twin_of), _operands(node)
        fits = len(operands[0]) == len(operands[1])
        news = {t.name: s.name for s, t in zip(*operands, strict=True) if t.name not in old} if fits else {}
        if node.name in checked and not (
            fits and all(pairs.get(t.name, news.get(t.name)) == s.name for s, t in zip(*operands, strict=True))
        ):
            continue
        if node.name not in rescaled:
            pairs[node.name] = node.name
        stand_ins.update({t: s for t, s in news.items() if t not in stand_ins})
    both = {**stand_ins, **pairs}
    return [
        Match(n.name, both[n.name], n.name not in pairs, _adapts(n), n.op == "output", (places or {}).get(both[n.name]))
        for n in after.graph.nodes
        if n.name in both
    ]


def _adapts(node: fx.Node) -> bool:
    return node.target is adapt_skip or (node.op == "call_module" and str(node.target).startswith("adapt_skip"))


def _alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes of the same name do the same; a growth may replace a call by an equivalent one."""
    return (a.op == b.op and a.target == b.target) or b.target in WRITTEN_OUT


def _operands(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found
