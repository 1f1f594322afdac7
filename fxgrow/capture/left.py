"""What a call leaves in the containers that it was given: lists, dicts, dataclasses and all that they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .containers import steps, way_into

NOTHING = "nothing"
"""Stands for an entry that is missing."""


def contents(tree: Any, label: str, leaf: Callable[[Any], Any]) -> dict[str, Any]:
    """Every container and every leaf in a tree, by the expression that reads it.

    Args:
        tree: any value.
        label: how the tree itself is called.
        leaf: what is to be noted of an object that is no container.

    Returns:
        For a container its class and the names of its items, as text; for one that was met before, where that was.
    """
    found: dict[str, Any] = {}
    _walk(tree, label, leaf, found, {})
    return found


def _walk(tree: Any, label: str, leaf: Callable[[Any], Any], found: dict[str, Any], met: dict[int, str]) -> None:
    way = way_into(type(tree))
    if way is None:
        found[label] = leaf(tree)
        return
    known = met.setdefault(id(tree), label)
    if known != label:
        found[label] = f"the same object as {known}"
        return
    names = steps(tree)
    more = {f".{name}": value for name, value in getattr(tree, "__dict__", {}).items() if f".{name}" not in names}
    items = [*zip(names, way.items(tree), strict=True), *more.items()]
    found[label] = f"{type(tree).__name__} of {', '.join(name for name, _ in items) or 'nothing'}"
    for name, item in items:
        _walk(item, label + name, leaf, found, met)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What is otherwise after a call: by the name of the entry what is there then."""
    return {
        label: after.get(label, NOTHING)
        for label in dict.fromkeys((*before, *after))
        if label not in before or label not in after or not _equal(before[label], after[label])
    }


def _equal(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, int | str) and isinstance(other, int | str) and one == other)
