"""Trees of values that models take and return: lists, tuples, dicts, dataclasses and whatever is nested in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same tree with each tensor replaced; containers are new, other values are kept."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple):
        items = [map_tensors(item, change) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if isinstance(tree, list):
        return [map_tensors(item, change) for item in tree]
    if isinstance(tree, dict) and type(tree) is dict:
        return {key: map_tensors(item, change) for key, item in tree.items()}
    if isinstance(tree, dict):
        made = copy.copy(tree)
        for key, item in tree.items():
            made[key] = map_tensors(item, change)
        return made
    if is_dataclass(tree) and not isinstance(tree, type):
        made = copy.copy(tree)
        for part in fields(tree):
            if hasattr(tree, part.name):
                object.__setattr__(made, part.name, map_tensors(getattr(tree, part.name), change))
        return made
    return tree


def named_leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every value in a tree that is no container, with a readable name: `output[0].logits`."""
    if isinstance(tree, list | tuple):
        for number, item in enumerate(tree):
            yield from named_leaves(item, f"{name}[{number}]")
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from named_leaves(item, f"{name}[{key!r}]")
    elif is_dataclass(tree) and not isinstance(tree, type):
        for part in fields(tree):
            yield from named_leaves(getattr(tree, part.name, None), f"{name}.{part.name}")
    else:
        yield name, tree
