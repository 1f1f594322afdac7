"""A stand-in for a whole module tree: what runs on it cannot change the module, its containers or its tensors."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .signature import flat_weights

DEEPEST = 4
"""How far plain objects that a module holds are followed."""


class Twin:
    """Copies the modules of a tree, and every list, dict, set and deque in them; tensors are replaced by a function.

    Bound methods of a module in the tree (hooks, a replaced `forward`) are bound to its copy. Other objects are shared.

    Example:
        >>> twin = Twin(lambda tensor: tensor)(model)
        >>> twin is not model and next(twin.parameters()) is next(model.parameters())
        True
    """

    def __init__(
        self, tensor: Callable[[Tensor], Tensor], kinds: Mapping[type[nn.Module], type[nn.Module]] | None = None
    ) -> None:
        """`tensor` says what stands in the place of a tensor; `kinds`, which class in the place of another."""
        self._tensor = tensor
        self._kinds = kinds or {}
        self._known: dict[int, Any] = {}
        self._alive: list[Any] = []

    def __call__(self, model: nn.Module) -> nn.Module:
        """The copy of a module; the same one each time."""
        found = self._known.get(id(model))
        if found is not None:
            assert isinstance(found, nn.Module)
            return found
        kind = self._kinds.get(type(model), type(model))
        made: nn.Module = object.__new__(kind)  # a GraphModule's `__new__` would make a class without `forward`
        self._keep(model, made)
        state = made.__dict__
        for name, value in model.__dict__.items():
            state[name] = self._value(value)
        if isinstance(made, nn.RNNBase):  # it keeps weak references to its weights
            state.update(flat_weights(made))
        return made

    def tensor(self, tensor: Tensor) -> Tensor:
        """What stands in the place of a tensor; the same one each time."""
        if id(tensor) not in self._known:
            self._keep(tensor, self._tensor(tensor))
        found = self._known[id(tensor)]
        assert isinstance(found, Tensor)
        return found

    def _keep(self, original: Any, made: Any) -> None:
        self._known[id(original)] = made
        self._alive.append(original)  # or its identity might be used again

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in _CONTAINERS:
            return self._container(value) if value else kind()
        if isinstance(value, nn.Module):
            return self(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if kind is MethodType and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, self(value.__self__))
        if kind is functools.partial:
            arguments = (self._value(item) for item in value.args)
            return functools.partial(self._value(value.func), *arguments, **self._value(value.keywords))
        if isinstance(value, dict | list | set | deque):
            return self._container(value)
        if isinstance(value, tuple) and value:
            items = [self._value(item) for item in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return kind(*items) if hasattr(value, "_fields") else kind(items)
        return value

    def _container(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._known[id(value)]
        try:
            made = copy.copy(value)
        except Exception:  # a container of the user's that cannot be copied is shared
            return value
        self._keep(value, made)
        if isinstance(made, dict):
            for key, item in value.items():
                dict.__setitem__(made, key, self._value(item))
        elif isinstance(made, list):
            list.__setitem__(made, slice(None), [self._value(item) for item in value])
        elif isinstance(made, deque):
            made.clear()
            made.extend(self._value(item) for item in value)
        else:
            made.clear()
            made.update(self._value(item) for item in value)
        return made


_PLAIN = frozenset({bool, int, float, str, type(None), type, torch.dtype, torch.device, torch.Size})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})


@contextmanager
def kept(things: Iterable[Any]) -> Iterator[None]:
    """While it lasts, some objects and containers, and all that they hold, may be written to; afterwards they are what
    they were."""
    saved: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    for thing in things:
        _note(thing, saved, seen, 0)
    try:
        yield
    finally:
        for thing, state in saved:
            _restore(thing, state)


class Attributes:
    """What the modules of a tree keep beside tensors and modules: numbers, lists, objects of the user's."""

    def __init__(self, model: nn.Module) -> None:
        """Look at everything now."""
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
        """Whether anything has become another object since."""
        return any(_differs(thing, state) for thing, state in self._saved)


def _differs(thing: Any, state: Any) -> bool:
    if isinstance(thing, dict):
        here = {k: v for k, v in thing.items() if k not in _STRUCTURE}
        return here.keys() != state.keys() or any(here[k] is not v for k, v in state.items())
    if isinstance(thing, list | deque):
        return len(thing) != len(state) or any(a is not b for a, b in zip(thing, state, strict=True))
    if isinstance(thing, set):
        return bool(thing != state)
    return any(getattr(thing, name, None) is not state.get(name) for name in _slots(thing))


_STRUCTURE = frozenset({"_parameters", "_buffers", "_modules"})


def _note(value: Any, saved: list[tuple[Any, Any]], seen: set[int], depth: int) -> None:
    """Remember the contents of an object and of what it holds."""
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
    """Whether an object is made by a class of the user's: not a function, nor a thing of torch's or of Python's."""
    module = type(value).__module__ or ""
    return not callable(value) and (is_dataclass(value) or module.split(".")[0] not in ("torch", "builtins", "weakref"))


def _slots(value: Any) -> list[str]:
    """Names of the attributes that a class keeps in slots."""
    found = [(kind, name) for kind in type(value).__mro__ for name in _listed(vars(kind).get("__slots__", ()))]
    return [
        f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
        for kind, name in found
        if name not in ("__dict__", "__weakref__")
    ]


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _restore(thing: Any, state: Any) -> None:
    if isinstance(thing, list):
        if len(thing) != len(state) or any(a is not b for a, b in zip(thing, state, strict=True)):
            list.__setitem__(thing, slice(None), state)
    elif isinstance(thing, dict):
        if thing.keys() != state.keys() or any(thing[k] is not v for k, v in state.items()):
            dict.clear(thing)
            dict.update(thing, state)
    elif isinstance(thing, deque):
        if len(thing) != len(state) or any(a is not b for a, b in zip(thing, state, strict=True)):
            thing.clear()
            thing.extend(state)
    elif not isinstance(thing, set):
        for name in _slots(thing):
            if name in state and getattr(thing, name, None) is not state[name]:
                object.__setattr__(thing, name, state[name])
            elif name not in state and hasattr(thing, name):
                object.__delattr__(thing, name)
    elif thing != state:
        thing.clear()
        thing.update(state)
