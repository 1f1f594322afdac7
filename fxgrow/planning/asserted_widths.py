"""Edit assertions that compare a width with a number, such as `torch._assert(x.shape[1] == 8, …)`."""

from __future__ import annotations

import operator

import torch
from torch import fx

from ..plans.plan import Path
from .grown_graph import GrownGraph
from .input_sizes import OtherSizes


def asserted_number(graph: GrownGraph, others: OtherSizes, node: fx.Node) -> tuple[Path, int] | None:
    """Return the new number in an asserted comparison and its path in the arguments; None if no edit is needed.

    A comparison is edited only if all its consumers are assertions, and only if it compares a width, which is the same
    for all inputs, or a number computed from widths without rounding or remainders.
    """
    if node.target is not operator.eq or any(user.target is not torch._assert for user in node.users):
        return None
    sides = list(enumerate(node.args))
    width = next((arg for _, arg in sides if isinstance(arg, fx.Node)), None)
    place = next((k for k, arg in sides if type(arg) is int), None)
    if width is None or place is None or width not in graph.changed or width in others.uneven:
        return None
    old, new = (graph.lookup(node, width, before) for before in (True, False))
    other = graph.analysis.second(graph.gm)
    follows = other is not None and other.results.get(width.name) != old
    if follows or old != node.args[place] or type(new) is not int:
        return None
    return ("args", place), new
