"""Helpers for the arguments and results of fx nodes, as trees of tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from ..containers import found, replaced
from .program import Ref, Value


def plain(arg: Any, env: Mapping[fx.Node, Any]) -> Any:
    """Return an fx argument as ordinary lists, tuples and dicts, with each node replaced by its result."""
    return replaced(arg, fx.Node, env.__getitem__)


def value_tree(tree: Any) -> Any:
    """Return a tree with each `Ref` replaced by its current value."""
    return tree.value if isinstance(tree, Ref) else replaced(tree, Ref, lambda ref: ref.value)


def leaves(tree: Any) -> list[Value]:
    """Return the values in a tree, in order."""
    return found(tree, Value)


def attribute(root: nn.Module, path: str) -> Any:
    """Return the attribute that a get_attr node reads, by its dotted path."""
    thing: Any = root
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing
