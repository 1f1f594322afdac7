"""Guards for optional inputs that the example gives: a proxy does not notice `if mask is not None`.

The trace takes the branch for inputs that are given. Where its graph would also run on None, a guard node raises an
error for None.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

from ...functional import decided
from ..traced_model.questions import is_read
from .values import Unknown, Values

_NONE_IS_FINE = frozenset({"is_", "is_not", "eq", "ne", "getitem", "setitem", "contains", "truth", "not_"})
"""Functions of `operator` that accept None."""


def guard_what_is_given(graph: fx.Graph, root: nn.Module, values: Values) -> None:
    """Add nodes that raise an error for an input that is None although the example gives a value.

    Inputs for which the graph raises an error anyway get no such node.

    Args:
        graph: the trace of code that compares something with None.
        root: the traced module.
        values: the values of the graph's nodes for the example inputs.
    """
    for node in list(graph.nodes):
        if not _is_input(node) or not all(_takes_none(user, node, root) for user in node.users):
            continue
        try:
            given = values.of(node)
            source = values.of(node.args[0]) if node.op != "placeholder" else None
        except Unknown:
            continue
        if isinstance(source, Tensor | torch.Size):  # its elements are never None
            continue
        if given is None or (node.op == "placeholder" and values.given(node) is None):
            continue
        before = node.next
        while before.op == "placeholder":
            before = before.next
        with graph.inserting_before(before):
            graph.call_function(decided, (node, "none", False, _told(node)))


def _is_input(node: fx.Node) -> bool:
    """Whether a node is an input, or reads an entry or attribute of an input that is a container or an object."""
    read: object = node
    while isinstance(read, fx.Node) and is_read(read):
        read = read.args[0]
    return isinstance(read, fx.Node) and read.op == "placeholder"


def _takes_none(user: fx.Node, node: fx.Node, root: nn.Module) -> bool:
    """Whether a node may run although an argument of it, `node`, is None."""
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
    """Return an input as it is written in code, such as `batch['mask']`."""
    if node.op == "placeholder":
        return str(node.target).lstrip("*")
    source, index = node.args[0], node.args[1] if len(node.args) > 1 else ""
    base = _told(source) if isinstance(source, fx.Node) else ""
    if node.target is getattr:
        return f"{base}.{index}"
    return f"{base}[{index!r}]" if node.target is operator.getitem else f"{base}.{node.target}({index!r})"
