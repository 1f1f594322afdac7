"""Detect whether a call changes attributes of modules other than tensors: counters, lists and objects."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

DEEPEST = 4
"""Limit on the depth to which the objects in a module's attributes are followed."""


class Attributes:
    """A snapshot of the attributes of all modules in a tree, other than registered tensors and submodules."""

    def __init__(self, model: nn.Module) -> None:
        """Take the snapshot of the current attributes of `model` and its submodules."""
        self._saved: list[tuple[Any, Any]] = []
        seen: set[int] = set()
        for module in model.modules():
            if type(module).__module__.startswith("torch.nn."):
                continue
            own = {k: v for k, v in module.__dict__.items() if k not in _STRUCTURE}
            self._saved.append((module.__dict__, own))
            for value in own.values():
                _note(value, self._saved, seen, 0)

    @property
    def changed(self) -> bool:
        """Whether any attribute or item is another object than in the snapshot."""
        return any(_differs(thing, state) for thing, state in self._saved)


def _differs(thing: Any, state: Any) -> bool:
    """Return whether an object holds other objects than in its saved state."""
    if isinstance(thing, dict):
        here = {k: v for k, v in thing.items() if k not in _STRUCTURE}
        return here.keys() != state.keys() or any(here[k] is not v for k, v in state.items())
    if isinstance(thing, list | deque):
        now = list(thing)  # a copy, because another thread may write to it
        return len(now) != len(state) or any(a is not b for a, b in zip(now, state, strict=True))
    if isinstance(thing, set):
        return bool(thing != state)
    return any(getattr(thing, name, None) is not state.get(name) for name in _slots(thing))


_STRUCTURE = frozenset({"_parameters", "_buffers", "_modules"})


def _note(value: Any, saved: list[tuple[Any, Any]], seen: set[int], depth: int) -> None:
    """Save the contents of an object, recursively."""
    if depth > DEEPEST or id(value) in seen or isinstance(value, nn.Module | Tensor | type | str | int | float | None):
        return
    seen.add(id(value))
    if isinstance(value, dict):
        items = list(value.values())
    elif isinstance(value, list | tuple | set | deque):
        items = list(value)
    elif _is_plain(value) and (hasattr(value, "__dict__") or _slots(value)):
        items = [value.__dict__] if hasattr(value, "__dict__") else []
        slots = {name: getattr(value, name) for name in _slots(value) if hasattr(value, name)}
        items += slots.values()
        saved += [(value, slots)] if slots or _slots(value) else []
    else:
        return
    if isinstance(value, dict | list | set | deque):
        saved.append((value, copy.copy(value)))
    for item in items:
        _note(item, saved, seen, depth + 1)


def _is_plain(value: Any) -> bool:
    """Return whether an object is an instance of a user class: not a function, nor of a class of torch or Python."""
    module = type(value).__module__ or ""
    return not callable(value) and (is_dataclass(value) or module.split(".")[0] not in ("torch", "builtins", "weakref"))


def _slots(value: Any) -> list[str]:
    """Return the names of the attributes that an object stores in slots."""
    found = [(kind, name) for kind in type(value).__mro__ for name in _listed(vars(kind).get("__slots__", ()))]
    return [
        f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
        for kind, name in found
        if name not in ("__dict__", "__weakref__")
    ]


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
