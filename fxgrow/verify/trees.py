"""Inputs and outputs in containers: which tensors a tree holds, and the same tree with other tensors in it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import fx
from torch.utils._pytree import tree_flatten, tree_unflatten

Change = Callable[[Any], Any]


def leaves(tree: Any) -> Iterator[Any]:
    """What a tree holds, in order: containers that torch knows, other mappings and data classes are opened."""
    for leaf in tree_flatten(tree)[0]:
        if _opened(leaf):
            yield from (x for item in _items(leaf).values() for x in leaves(item))
        else:
            yield leaf


def mapped(tree: Any, change: Change) -> Any:
    """The same tree with every leaf changed, in the order of `leaves`. What is given stays as it is."""
    flat, spec = tree_flatten(tree)
    return tree_unflatten([_rebuilt(leaf, change) if _opened(leaf) else change(leaf) for leaf in flat], spec)


def _opened(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) or (is_dataclass(leaf) and not isinstance(leaf, type))


def _items(leaf: Any) -> dict[Any, Any]:
    if isinstance(leaf, Mapping):
        return dict(leaf.items())
    return {f.name: getattr(leaf, f.name) for f in fields(leaf) if hasattr(leaf, f.name)}


def _rebuilt(leaf: Any, change: Change) -> Any:
    new = {key: mapped(item, change) for key, item in _items(leaf).items()}
    if isinstance(leaf, Mapping) and not isinstance(leaf, MutableMapping):
        return new
    made = copy.copy(leaf)
    for key, item in new.items():
        if isinstance(made, MutableMapping):
            made[key] = item
        else:
            object.__setattr__(made, key, item)  # a frozen one is rebuilt, too
    return made


@dataclass(frozen=True, slots=True)
class Given:
    """What a model is called with: positional arguments, and those by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def leaves(self) -> list[Any]:
        """Every value in it, the positional ones first."""
        return list(leaves((self.args, self.kwargs)))

    def mapped(self, change: Change) -> Given:
        """The same call with other values."""
        args, kwargs = mapped((self.args, self.kwargs), change)
        return Given(args, kwargs)


def in_order(gm: fx.GraphModule, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of a graph's placeholders, where some arguments are given by name."""
    if not kwargs:
        return tuple(args)
    bound = inspect.signature(gm.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return (*bound.args, *bound.kwargs.values())
