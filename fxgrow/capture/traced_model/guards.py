"""Guards of a graph and a place in it: which of them can be asked before all else runs there, and which cannot."""

from __future__ import annotations

from torch import fx

from ...functional import numpy_number
from .decisions import guards
from .questions import is_value

_OF_NUMBERS = frozenset({"_operator", "math", "builtins"})
"""Modules whose functions, called on sizes, return numbers."""


def guards_of(node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """The guards behind a node, told apart by what they look at.

    Args:
        node: of a graph.

    Returns:
        The nodes that can stand directly behind it, in order: guards that look at sizes of what has been computed
        there, and the arithmetic that they need. And the guards that look at what is computed later.
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
    """A guard and all behind a place that it is computed from."""
    found, waiting = {guard}, [guard]
    while waiting:
        new = {n for n in waiting.pop().all_input_nodes if order[n] > place} - found
        found |= new
        waiting += new
    return found


def _is_number(node: fx.Node) -> bool:
    """Whether a node reads a size, or computes with some."""
    if is_value(node):
        return True
    module = getattr(node.target, "__module__", "") if node.op == "call_function" else ""
    computes = node.target is numpy_number or (module in _OF_NUMBERS and node.target is not getattr)
    return computes and bool(node.all_input_nodes) and all(map(_is_number, node.all_input_nodes))
