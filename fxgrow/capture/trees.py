"""Arguments and results of fx nodes as plain trees of tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from .program import Value
from .signature import substitute


def plain(arg: Any, env: Mapping[fx.Node, Any]) -> Any:
    """Arguments of an fx node as ordinary lists, tuples and dicts, with each node's result in its place."""
    if isinstance(arg, fx.Node):
        return env[arg]
    if isinstance(arg, tuple):
        return tuple(plain(item, env) for item in arg)
    if isinstance(arg, list):
        return [plain(item, env) for item in arg]
    if isinstance(arg, dict):
        return {k: plain(v, env) for k, v in arg.items()}
    if isinstance(arg, slice):
        return slice(plain(arg.start, env), plain(arg.stop, env), plain(arg.step, env))
    return arg


def value_tree(tree: Any) -> Any:
    """A tree of references as a tree of the values they hold now."""
    return substitute(tuple(tree) if isinstance(tree, torch.Size) else tree, lambda ref: ref.value)


def leaves(tree: Any) -> list[Value]:
    """The values in a tree."""
    if isinstance(tree, Value):
        return [tree]
    if isinstance(tree, dict):
        return [v for item in tree.values() for v in leaves(item)]
    if isinstance(tree, list | tuple):
        return [v for item in tree for v in leaves(item)]
    return []


def attribute(root: nn.Module, path: str) -> Any:
    """What a get_attr node returns."""
    thing: Any = root
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing
