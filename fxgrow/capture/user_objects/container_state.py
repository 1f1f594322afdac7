"""Compare the contents of the containers among a call's arguments (lists, dicts, dataclasses) before and after it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..containers import steps, way_into
from .stand_ins import attributes, members, slots
from .user_code import is_own

NOTHING = "nothing"
"""Placeholder for a missing entry."""


def contents(tree: Any, label: str, leaf: Callable[[Any], Any]) -> dict[str, Any]:
    """Describe every container and every leaf in a tree, by the expression that reads it.

    Args:
        tree: any value.
        label: the name of the tree itself.
        leaf: returns the description of an object that is not a container.

    Returns:
        For a container, its class and the names of its items as text, or a reference to its first occurrence if it
        occurs again; for a leaf, the result of `leaf`.
    """
    found: dict[str, Any] = {}
    _walk(tree, label, leaf, found, {})
    return found


Met = dict[int, tuple[str, Any]]
"""Maps the `id` of a visited object to its label and the object, which is kept alive so that its id is not reused."""


def _walk(tree: Any, label: str, leaf: Callable[[Any], Any], found: dict[str, Any], met: Met) -> None:
    way = way_into(type(tree))
    if way is None and not is_object(tree):
        found[label] = leaf(tree)
        return
    known, _ = met.setdefault(id(tree), (label, tree))
    if known != label:
        found[label] = f"the same object as {known}"
        return
    names = steps(tree)
    held = {**(attributes(tree) or {}), **slots(tree)} if way is None else attributes(tree) or {}
    more = {f".{name}": value for name, value in held.items() if f".{name}" not in names}
    items = [*zip(names, way.items(tree) if way is not None else (), strict=True), *more.items()]
    found[label] = f"{type(tree).__name__} of {', '.join(name for name, _ in items) or 'nothing'}"
    for name, item in items:
        _walk(item, label + name, leaf, found, met)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that differ after a call, by name, with their new descriptions (NOTHING if removed)."""
    return {
        label: after.get(label, NOTHING)
        for label in dict.fromkeys((*before, *after))
        if label not in before or label not in after or not _equal(before[label], after[label])
    }


def _equal(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, int | str) and isinstance(other, int | str) and one == other)


def is_object(leaf: Any) -> bool:
    """Return whether a leaf is an instance of a user class with attributes, which `forward` may modify."""
    kind = type(leaf)
    if kind is SimpleNamespace:
        return True
    if isinstance(leaf, Tensor | nn.Module | type | torch.Generator | FunctionType | MethodType | functools.partial):
        return False
    return way_into(kind) is None and is_own(kind) and (hasattr(leaf, "__dict__") or bool(members(kind)))


def copied(leaf: Any) -> Any:
    """Return a copy of a leaf that `forward` may modify (see `is_object`); any other leaf is returned as it is."""
    if not is_object(leaf):
        return leaf
    for copy_of in (copy.deepcopy, copy.copy):
        try:
            return copy_of(leaf)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # for example, a lock cannot be copied
            continue
    return leaf


def mutable(tree: Any) -> list[Any]:
    """Return everything in a tree that can be modified: containers except tuples and slices, and user objects."""
    found: list[Any] = []
    _mutable(tree, found, {})
    return found


def _mutable(tree: Any, found: list[Any], met: dict[int, Any]) -> None:
    way = way_into(type(tree))
    if way is None and not is_object(tree):
        return
    if id(tree) in met:
        return
    met[id(tree)] = tree
    if not isinstance(tree, tuple | slice):
        found.append(tree)
    items = way.items(tree) if way is not None else [*(attributes(tree) or {}).values(), *slots(tree).values()]
    for item in items:
        _mutable(item, found, met)
