"""Copy a module tree so that running the copy cannot modify the original, its containers or its tensors."""

from __future__ import annotations

import copy
import functools
import itertools
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..program.call_key import flat_weights
from .compiled import CALL, original
from .stand_ins import dict_class, slots
from .warnings import silent


class Twin:
    """Copies the modules of a tree and all lists, dicts, sets and deques in them; tensors are replaced by a function.

    Bound methods of a module in the tree (hooks, a replaced `forward`) are bound to its copy. Compiled functions are
    replaced by the original eager ones. Other objects are shared.

    Example:
        >>> twin = Twin(lambda tensor: tensor)(model)
        >>> twin is not model and next(twin.parameters()) is next(model.parameters())
        True
    """

    def __init__(
        self, tensor: Callable[[Tensor], Tensor], kinds: Mapping[type[nn.Module], type[nn.Module]] | None = None
    ) -> None:
        """`tensor` returns the replacement of a tensor; `kinds` maps module classes to the classes of their copies."""
        self._tensor = tensor
        self._kinds = kinds or {}
        self._known: dict[int, Any] = {}
        self._alive: list[Any] = []

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the copy of a module (cached)."""
        found = self._known.get(id(model))
        if found is not None:
            assert isinstance(found, nn.Module)
            return found
        kind = self._kinds.get(type(model), type(model))
        made: nn.Module = object.__new__(kind)  # a GraphModule's `__new__` would make a class without `forward`
        self._keep(model, made)
        state = made.__dict__
        for name, value in model.__dict__.items():
            of = type(value)
            if of in _PLAIN:
                state[name] = value
            else:  # most containers of a layer are empty
                state[name] = of() if of in _CONTAINERS and not value else self._value(value)
        for name, value in slots(model).items():
            object.__setattr__(made, name, self._value(value))
        state.pop(CALL, None)  # it would run the original module
        if isinstance(made, nn.RNNBase):  # it keeps weak references to its weights
            state.update(flat_weights(made))
        return made

    def tensor(self, tensor: Tensor) -> Tensor:
        """Return the replacement of a tensor (cached)."""
        if id(tensor) not in self._known:
            self._keep(tensor, self._tensor(tensor))
        found = self._known[id(tensor)]
        assert isinstance(found, Tensor)
        return found

    def _keep(self, original: Any, made: Any) -> None:
        self._known[id(original)] = made
        self._alive.append(original)  # so that its id is not reused

    def _value(self, value: Any) -> Any:
        """Return the replacement of an attribute value: a copy if it is or contains something to be copied."""
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
        if kind is FunctionType and value.__closure__:
            eager = original(value)
            return self._function(value) if eager is value else self._value(eager)
        if kind is functools.partial:
            arguments = (self._value(item) for item in value.args)
            made = functools.partial(self._value(value.func), *arguments, **self._value(value.keywords))
            made.__dict__.update(value.__dict__)
            return made
        if isinstance(value, dict | list | set | deque | UserDict | UserList):
            return self._container(value)
        if kind in _ITERATORS:
            return _iterator(value)
        if isinstance(value, tuple) and value:
            items = [self._value(item) for item in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return kind(*items) if hasattr(value, "_fields") else kind(items)
        return value

    def _function(self, value: FunctionType) -> FunctionType:
        """Return a function with the modules and bound methods in its closure replaced by those of the twin."""
        cells = []
        for cell in value.__closure__ or ():
            held = cell.cell_contents if filled(cell) else None
            bound = isinstance(held, MethodType) and isinstance(held.__self__, nn.Module)
            cells.append(CellType(self._value(held)) if bound or isinstance(held, nn.Module) else cell)
        if all(a is b for a, b in zip(cells, value.__closure__ or (), strict=True)):
            return value
        made = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells))
        made.__kwdefaults__ = value.__kwdefaults__
        made.__dict__.update(value.__dict__)
        return made

    def _container(self, value: Any) -> Any:
        """Return a copy of a container with its items replaced (cached)."""
        if id(value) in self._known:
            return self._known[id(value)]
        try:
            made = copy.copy(value)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a user container that cannot be copied is shared
            return value
        self._keep(value, made)
        if isinstance(made, dict):
            for key, item in list(dict_class(value).items(value)):
                dict_class(made).__setitem__(made, key, self._value(item))
        elif isinstance(made, list):
            list.__setitem__(made, slice(None), [self._value(item) for item in list(value)])
        elif isinstance(made, UserDict | UserList):
            made.data = self._value(value.data)
        elif isinstance(made, deque):
            deque.clear(made)
            deque.extend(made, [self._value(item) for item in list(value)])
        else:
            made.clear()
            made.update([self._value(item) for item in list(value)])
        return made


_copied: dict[int, tuple[Any, Any]] | None = None
"""Maps the `id` of an iterator to the iterator and its copy; None if every twin gets its own copy."""


@contextmanager
def iterators_copied_once() -> Iterator[None]:
    """Let all twins created in this context share one copy of each iterator, as calls of the model share the iterator.

    Recordings that read numbers from it then differ, and this can be detected. Enter it under `ONE_AT_A_TIME`.
    """
    global _copied  # one trace runs at a time
    before, _copied = _copied, {}
    try:
        yield
    finally:
        _copied = before


def _iterator(value: Any) -> Any:
    """Return the copy of an iterator; the iterator itself if it cannot be copied (over a generator or a file)."""
    if _copied is not None and id(value) in _copied:
        return _copied[id(value)][1]
    try:
        with silent():  # Python 3.12 and 3.13 warn that itertools objects cannot be copied from 3.14 on
            made = _reduced(value)
    except (TypeError, AttributeError):
        made = value
    if _copied is not None:
        _copied[id(value)] = value, made
    return made


def _reduced(value: Any) -> Any:
    kind, arguments, *states = value.__reduce__()
    if type(value) not in _ITERATORS:
        raise TypeError("an iterator that may share its place with others")
    made = kind(*(_reduced(item) if isinstance(item, Iterator) else item for item in arguments))
    for state in states:  # the state of a cycle contains its list of saved items, which grows
        made.__setstate__(tuple(copy.copy(x) for x in state) if isinstance(state, tuple) else state)
    return made


def filled(cell: CellType) -> bool:
    """Return whether a closure cell has a value."""
    try:
        cell.cell_contents  # noqa: B018  # an empty one raises
    except ValueError:
        return False
    return True


_PLAIN = frozenset({bool, int, float, str, type(None), type, torch.dtype, torch.device, torch.Size})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
_ITERATORS: frozenset[Any] = frozenset(
    {itertools.count, itertools.cycle, itertools.repeat, enumerate, zip}
    | {type(iter(())), type(iter([])), type(iter("")), type(iter(range(0))), type(iter(range(2**70)))}
)
"""Iterators that expose their position by `__reduce__`, so that they can be copied."""
