"""Find stand-ins for tensors, that is, fake tensors and fx proxies, inside user objects."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, deque
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

DEEPEST = 6
"""Limit on the depth of a search."""
MOST = 10_000
"""Limit on the number of objects visited in a search."""
SIMPLE = frozenset(
    {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, Tensor, range, slice}
)
"""Classes whose instances hold no other objects."""
_CLOSED = (type, types.ModuleType, types.BuiltinFunctionType, Tensor)


def is_stand_in(thing: Any) -> bool:
    """Return whether an object is or contains a fake tensor or a proxy."""
    seen: set[int] = set()
    level = [thing]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, FakeTensor | fx.Proxy):
                return True
            if type(item) in SIMPLE or id(item) in seen or len(seen) > MOST:
                continue
            seen.add(id(item))
            below += parts(item)
        level = below
    return False


def parts(thing: Any) -> list[Any]:
    """Return the objects that an object holds: items, attributes, slots and closure values."""
    if isinstance(thing, _CLOSED):
        return []
    found: list[Any] = []
    if isinstance(thing, dict):
        found += [part for pair in dict_class(thing).items(thing) for part in pair]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        found += list(thing)
    elif isinstance(thing, functools.partial):
        found += [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    elif isinstance(thing, types.FunctionType):
        found += contents(thing).values()
    return [*found, *(attributes(thing) or {}).values(), *slots(thing).values()]


def dict_class(thing: dict[Any, Any]) -> Any:
    """Return `OrderedDict` or `dict`: the class whose methods access a dict without running those of a user class."""
    return OrderedDict if isinstance(thing, OrderedDict) else dict


def attributes(thing: Any) -> dict[str, Any] | None:
    """Return the `__dict__` of an object, bypassing overrides; None if it has none."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except (AttributeError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def members(kind: type) -> dict[str, types.MemberDescriptorType]:
    """Return the slot descriptors of a class and its bases, by name."""
    return {
        name: value
        for base in reversed(kind.__mro__)
        if "__slots__" in vars(base)
        for name, value in vars(base).items()
        if isinstance(value, types.MemberDescriptorType)
    }


def slots(thing: Any) -> dict[str, Any]:
    """Return the values of the slots of an object that are set, by name."""
    found = {}
    for name, member in members(type(thing)).items():
        try:
            found[name] = member.__get__(thing, type(thing))
        except AttributeError:
            continue
    return found


def contents(function: types.FunctionType) -> dict[int, Any]:
    """Return the values in the closure of a function, by cell number; empty cells are left out."""
    found = {}
    for number, cell in enumerate(function.__closure__ or ()):
        try:
            found[number] = cell.cell_contents
        except ValueError:  # an empty cell
            continue
    return found
