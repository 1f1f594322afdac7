"""Arguments and results of fx nodes as plain trees of tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from ..containers import found, replaced
from .program import Ref, Value


def plain(arg: Any, env: Mapping[fx.Node, Any]) -> Any:
    """Arguments of an fx node as ordinary lists, tuples and dicts, with each node's result in its place."""
    return replaced(arg, fx.Node, env.__getitem__)


def value_tree(tree: Any) -> Any:
    """A tree of references as a tree of the values they hold now."""
    return tree.value if isinstance(tree, Ref) else replaced(tree, Ref, lambda ref: ref.value)


def leaves(tree: Any) -> list[Value]:
    """The values in a tree."""
    return found(tree, Value)


def attribute(root: nn.Module, path: str) -> Any:
    """What a get_attr node returns."""
    thing: Any = root
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing
