"""Flatten and rebuild containers of tensors: lists, tuples, dicts (subclasses too), dataclasses and pytree nodes."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

_KINDS = 4096
"""Cache size by number of classes; it is limited so that dynamically created classes do not stay alive."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to flatten the containers of one class, and how to rebuild them with other items."""

    items: Callable[[Any], Sequence[Any]]
    rebuilt: Callable[[Any, Sequence[Any]], Any]
    names: Callable[[Any], tuple[Any, ...]]
    """Returns the structure of a container apart from its items: keys, field names or length."""


def _number(items: Any) -> tuple[Any, ...]:
    return (len(items),)


def _filled(mapping: Any, items: Sequence[Any]) -> Any:
    """Return a copy of a mapping with other values, keeping other attributes (those of a ModelOutput, for example)."""
    made = copy.copy(mapping)
    for key, item in zip(list(mapping), items, strict=True):
        made[key] = item
    return made


def _record(kind: Any) -> Way:
    """Return the `Way` of a dataclass, whose items are the fields that are set."""

    names = tuple(f.name for f in fields(kind))

    def rebuilt(like: Any, items: Sequence[Any]) -> Any:
        made = copy.copy(like)  # neither __init__ nor __post_init__ runs again
        for name, item in zip(_present(like), items, strict=True):
            object.__setattr__(made, name, item)
        return made

    def _present(like: Any) -> tuple[str, ...]:
        return tuple(name for name in names if hasattr(like, name))

    return Way(lambda like: [getattr(like, name) for name in _present(like)], rebuilt, _present)


def _registered(kind: type) -> Way:
    """Return the `Way` of a class that is registered with `torch.utils._pytree`."""
    node = _pytree.SUPPORTED_NODES[kind]

    def context(like: Any) -> tuple[Any, ...]:
        spec = _pytree.tree_structure(like, is_leaf=lambda x: x is not like)
        return (repr(spec),)

    return Way(
        lambda like: list(node.flatten_fn(like)[0]),
        lambda like, items: node.unflatten_fn(list(items), node.flatten_fn(like)[1]),
        context,
    )


_SCALARS = frozenset({int, float, bool, str, type(None)})
_LIST = Way(lambda x: x, lambda _, items: list(items), _number)
_TUPLE = Way(lambda x: x, lambda _, items: tuple(items), _number)
_DICT = Way(lambda x: list(x.values()), lambda like, items: dict(zip(like, items, strict=True)), tuple)
_MAPPING = Way(lambda x: list(x.values()), _filled, tuple)
_SLICE = Way(lambda x: (x.start, x.stop, x.step), lambda _, items: slice(*items), lambda _: ())
_EXACT: dict[type, Way] = {
    list: _LIST,
    tuple: _TUPLE,
    dict: _DICT,
    slice: _SLICE,
    torch.Size: _TUPLE,
    type({}.values()): Way(list, lambda _, items: list(items), _number),
    type({}.items()): Way(list, lambda _, items: list(items), _number),
    fx.immutable_collections.immutable_list: _LIST,
    fx.immutable_collections.immutable_dict: _DICT,
}


@lru_cache(maxsize=_KINDS)
def _way(kind: Any) -> Way | None:
    """Return how to flatten objects of a class that is not in `_EXACT`; None if they are leaves."""
    if issubclass(kind, Tensor | nn.Module | str | bytes | torch.dtype):
        return None
    if issubclass(kind, tuple):
        if hasattr(kind, "_fields"):
            return Way(lambda x: x, lambda like, items: type(like)(*items), _number)
        return Way(lambda x: x, lambda like, items: type(like)(items), _number)
    if issubclass(kind, list):
        return Way(lambda x: x, lambda like, items: type(like)(items), _number)
    if issubclass(kind, dict | UserDict):
        return _MAPPING
    if is_dataclass(kind):
        return _record(kind)
    return _registered(kind) if kind in _pytree.SUPPORTED_NODES else None


def way_into(kind: Any) -> Way | None:
    """Return how to flatten objects of a class; None if they are leaves, not containers."""
    return _EXACT.get(kind) or _way(kind)


def replaced(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return a tree with every object of a class replaced. Containers are rebuilt, and other leaves are kept."""
    if isinstance(tree, kind):
        return change(tree)
    form = type(tree)
    if form in _SCALARS:
        return tree
    if form is tuple:
        return tuple(
            [
                change(item)
                if isinstance(item, kind)
                else item
                if type(item) in _SCALARS
                else replaced(item, kind, change)
                for item in tree
            ]
        )
    way = way_into(form)
    if way is None:
        return tree
    return way.rebuilt(tree, [replaced(item, kind, change) for item in way.items(tree)])


def found(tree: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """Return all objects of the given class or classes in a tree, in order."""
    if isinstance(tree, kind):
        return [tree]
    form = type(tree)
    if form in _SCALARS:
        return []
    way = way_into(form)
    if way is None:
        return []
    return [thing for item in way.items(tree) for thing in found(item, kind)]


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree, in order."""
    way = way_into(type(tree))
    if way is None:
        return [tree]
    return [leaf for item in way.items(tree) for leaf in leaves(item)]


def changed(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Return a tree with `change` applied to each leaf."""
    way = way_into(type(tree))
    if way is None:
        return change(tree)
    return way.rebuilt(tree, [changed(item, change) for item in way.items(tree)])


def classes(tree: Any) -> str:
    """Return the classes of the containers in a tree as text, such as `dict(list, tuple)`; empty for a leaf."""
    way = way_into(type(tree))
    if way is None:
        return ""
    inner = ", ".join(filter(None, (classes(item) for item in way.items(tree))))
    return f"{type(tree).__name__}({inner})" if inner else type(tree).__name__


def paths(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return each leaf of a tree with the expression that reads it, such as `batch['x']` if `name` is "batch"."""
    way = way_into(type(tree))
    if way is None:
        return [(name, tree)]
    items = zip(steps(tree), way.items(tree), strict=True)
    return [leaf for step, item in items for leaf in paths(item, name + step)]


def steps(tree: Any) -> list[str]:
    """Return the expression that reads each item of a container, in order: `['x']`, `.x` or `[0]`."""
    way = way_into(type(tree))
    if way is None:
        return []
    if isinstance(tree, dict | UserDict):
        return [f"[{key!r}]" for key in tree]
    if is_dataclass(tree) or hasattr(tree, "_fields"):
        return [f".{step}" for step in getattr(tree, "_fields", None) or way.names(tree)]
    return [f"[{k}]" for k in range(len(way.items(tree)))]
