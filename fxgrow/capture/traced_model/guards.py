"""The guards behind a node of a graph: those that can be checked right after the node, and the others."""

from __future__ import annotations

from torch import fx

from ...functional import numpy_number
from .decisions import guards
from .questions import is_value

_OF_NUMBERS = frozenset({"_operator", "math", "builtins"})
"""Modules whose functions return numbers if they are called on sizes."""


def guards_of(node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the guards behind a node, separated by what they read.

    Args:
        node: a node of the graph.

    Returns:
        The nodes that can be moved directly behind `node`, in order: guards that read sizes of values computed by then,
        and the arithmetic that they need. Then the guards that read values computed later.
    """
    order = {n: k for k, n in enumerate(node.graph.nodes)}
    ahead: set[fx.Node] = set()
    later = []
    for guard in guards(node.graph):
        if order[guard] < order[node]:
            continue
        needed = _needed(guard, order, order[node])
        if all(n is guard or _is_number(n) for n in needed):
            ahead |= needed
        else:
            later.append(guard)
    return sorted(ahead, key=order.__getitem__), later


def _needed(guard: fx.Node, order: dict[fx.Node, int], place: int) -> set[fx.Node]:
    """Return a guard and the nodes after a position in the graph that it is computed from."""
    found, waiting = {guard}, [guard]
    while waiting:
        new = {n for n in waiting.pop().all_input_nodes if order[n] > place} - found
        found |= new
        waiting += new
    return found


def _is_number(node: fx.Node) -> bool:
    """Whether a node reads a size, or computes a number from sizes."""
    if is_value(node):
        return True
    module = getattr(node.target, "__module__", "") if node.op == "call_function" else ""
    computes = node.target is numpy_number or (module in _OF_NUMBERS and node.target is not getattr)
    return computes and bool(node.all_input_nodes) and all(map(_is_number, node.all_input_nodes))
