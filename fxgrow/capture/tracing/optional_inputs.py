"""Inputs that the example has and another call may leave out: code asks `if mask is not None`, unseen by a stand-in.

The trace takes the branch for inputs that have something there. Where its graph would run on None as well, a node in it
raises an error for None.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

from ...functional import decided
from ..traced_model.questions import is_read
from .values import Unknown, Values

_NONE_IS_FINE = frozenset({"is_", "is_not", "eq", "ne", "getitem", "setitem", "contains", "truth", "not_"})
"""Functions of `operator` that take None."""


def guard_what_is_given(graph: fx.Graph, root: nn.Module, values: Values) -> None:
    """Add nodes that raise an error where an input is None that is something else in the example, and where nothing
    else in the graph would raise one.

    Args:
        graph: the trace of code that tests something for None.
        root: what was traced.
        values: of its nodes, for the example.
    """
    for node in list(graph.nodes):
        if not _is_input(node) or not all(_takes_none(user, node, root) for user in node.users):
            continue
        try:
            given = values.of(node)
            source = values.of(node.args[0]) if node.op != "placeholder" else None
        except Unknown:
            continue
        if isinstance(source, Tensor | torch.Size):  # its parts are never None
            continue
        if given is None or (node.op == "placeholder" and values.given(node) is None):
            continue
        before = node.next
        while before.op == "placeholder":
            before = before.next
        with graph.inserting_before(before):
            graph.call_function(decided, (node, "none", False, _told(node)))


def _is_input(node: fx.Node) -> bool:
    """Whether a node stands for an input, or reads an entry or attribute of one that is a container or an object."""
    read: object = node
    while isinstance(read, fx.Node) and is_read(read):
        read = read.args[0]
    return isinstance(read, fx.Node) and read.op == "placeholder"


def _takes_none(user: fx.Node, node: fx.Node, root: nn.Module) -> bool:
    """Whether a node may run although another one that it reads is None."""
    first = bool(user.args) and user.args[0] is node
    if user.op == "call_method":
        return not first
    if user.op == "call_module":
        called = root.get_submodule(str(user.target))
        return not (first and type(called).__module__.startswith("torch.nn."))
    if user.op != "call_function":
        return True
    if user.target is getattr:
        return False
    if user.target is decided:
        return user.args[1] in ("condition", "key")
    module, name = getattr(user.target, "__module__", None), getattr(user.target, "__name__", "")
    if module == operator.__name__ or module == "_operator":
        return name in _NONE_IS_FINE
    return not (first and (module is None or module.startswith(("torch", "_"))))


def _told(node: fx.Node) -> str:
    """An input as code names it: `batch['mask']`."""
    if node.op == "placeholder":
        return str(node.target).lstrip("*")
    source, index = node.args[0], node.args[1] if len(node.args) > 1 else ""
    base = _told(source) if isinstance(source, fx.Node) else ""
    if node.target is getattr:
        return f"{base}.{index}"
    return f"{base}[{index!r}]" if node.target is operator.getitem else f"{base}.{node.target}({index!r})"
