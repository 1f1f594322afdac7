"""Locations where user code may store values, with their previous contents, to remove stand-ins from them afterwards.

Stand-ins are fake tensors and fx proxies. Other threads may write to the same locations meanwhile. An entry is
therefore removed only if it is or contains a new stand-in, and the entry that it replaced is restored. Apart from that,
only flags that were set together with a stand-in are restored.
"""

from __future__ import annotations

import array
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .stand_ins import SIMPLE, attributes, contents, dict_class, is_stand_in, members, slots

_NOTHING = object()
LARGEST_ARRAY = 2**28
"""Size in bytes of the largest array that is saved; larger ones are assumed to be data sets that no call modifies."""


class Kept(Protocol):
    """The saved contents of a location."""

    def clean(self) -> None:
        """Remove new stand-ins, and restore the entries that they replaced."""

    def restore(self) -> None:
        """Restore all contents, including what other threads have written."""


@dataclass(frozen=True, slots=True)
class Named:
    """The saved entries of a location with named entries: a dict, attributes, slots, closure cells or globals."""

    before: dict[Any, Any]
    now: Callable[[], dict[Any, Any]]
    put: Callable[[Any, Any], object]
    drop: Callable[[Any], object]
    flags: bool = False
    """Whether flags set along with a stand-in are undone too: `table = torch.ones(8)` and `ready = True`, for example.
    """

    def clean(self) -> None:
        """Remove new stand-ins, and restore the entries that they replaced."""
        changed = [name for name, item in self.now().items() if self.before.get(name, _NOTHING) is not item]
        now = self.now()
        bad = [name for name in changed if is_stand_in(now.get(name)) or is_stand_in(name)]
        if bad and self.flags:
            bad += [name for name in changed if self._is_flag(now.get(name), self.before.get(name, _NOTHING))]
        for name in dict.fromkeys(bad):
            if name in self.before:
                self.put(name, self.before[name])
            else:
                self.drop(name)

    def _is_flag(self, now: Any, old: Any) -> bool:
        return type(now) in SIMPLE and (old is _NOTHING or old is None or isinstance(old, bool))

    def restore(self) -> None:
        """Remove new entries, and restore changed or missing ones."""
        now = self.now()
        for name in [name for name in now if name not in self.before]:
            self.drop(name)
        for name, old in self.before.items():
            if now.get(name, _NOTHING) is not old:
                self.put(name, old)


@dataclass(frozen=True, slots=True)
class Items:
    """The saved items of a list or a deque."""

    before: tuple[Any, ...]
    thing: Any

    def clean(self) -> None:
        """Remove stand-ins, and restore items that they replaced or pushed out of a full deque."""
        thing, known, now = self.thing, {id(item) for item in self.before}, list(self.thing)
        there = {id(item) for item in now}
        bad = [k for k, item in enumerate(now) if id(item) not in known and is_stand_in(item)]
        full = isinstance(thing, deque) and thing.maxlen == len(now)
        for k in reversed(bad):
            if k >= len(thing) or thing[k] is not now[k]:
                continue
            replaced = k < len(self.before) and id(self.before[k]) not in there
            if replaced and not full:
                thing[k] = self.before[k]
            else:
                del thing[k]
        if bad and full:
            lost = [item for item in self.before if id(item) not in there]
            for item in reversed(lost[len(lost) - min(len(lost), thing.maxlen - len(thing)) :]):
                thing.appendleft(item)

    def restore(self) -> None:
        """Restore all items of the list or deque, in their order."""
        now = list(self.thing)
        if len(now) == len(self.before) and all(a is b for a, b in zip(now, self.before, strict=True)):
            return
        if isinstance(self.thing, deque):
            self.thing.clear()
            self.thing.extend(self.before)
        else:
            list.__setitem__(self.thing, slice(None), list(self.before))


@dataclass(frozen=True, slots=True)
class Members:
    """The saved members of a set."""

    before: frozenset[Any]
    thing: set[Any]

    def clean(self) -> None:
        """Remove members that are or contain new stand-ins."""
        known = {id(item) for item in self.before}
        self.thing.difference_update([x for x in list(self.thing) if id(x) not in known and is_stand_in(x)])

    def restore(self) -> None:
        """Restore all members of the set."""
        if self.thing != self.before:
            self.thing.clear()
            self.thing.update(self.before)


@dataclass(frozen=True, slots=True)
class Entries:
    """The saved contents of a numeric buffer: a NumPy array, an `array.array` or a bytearray."""

    before: Any
    thing: Any

    def clean(self) -> None:
        """Do nothing, because a numeric buffer cannot contain stand-ins."""

    def restore(self) -> None:
        """Restore all entries, unless the size has changed and cannot be restored."""
        if isinstance(self.thing, bytearray | array.array):
            if self.thing != self.before:
                try:
                    self.thing[:] = self.before
                except BufferError:  # a memoryview of it exists, so it cannot be resized
                    return
        elif self.thing.shape == self.before.shape and self.thing.tobytes() != self.before.tobytes():
            self.thing[...] = self.before


def entries_of(thing: Any) -> Kept | None:
    """Save an array or a bytearray; return None for other objects, and for read-only or large NumPy arrays."""
    if isinstance(thing, bytearray | array.array):
        return Entries(thing[:], thing)
    numpy = sys.modules.get("numpy")  # if there is an array, NumPy is imported
    if numpy is None or not isinstance(thing, numpy.ndarray) or isinstance(thing, numpy.memmap):
        return None
    return Entries(thing.copy(), thing) if thing.flags.writeable and thing.nbytes <= LARGEST_ARRAY else None


def container(thing: Any) -> Kept | None:
    """Save the entries of a list, dict, set or deque; return None for other objects."""
    if isinstance(thing, dict):
        kind = dict_class(thing)
        put, drop = lambda k, v: kind.__setitem__(thing, k, v), lambda k: kind.pop(thing, k, None)
        return Named(dict(kind.items(thing)), lambda: dict(kind.items(thing)), put, drop)
    if isinstance(thing, list | deque):
        return Items(tuple(thing), thing)
    return Members(frozenset(thing), thing) if isinstance(thing, set) else None


def attributes_of(thing: Any) -> Kept | None:
    """Save the attributes in the `__dict__` of an object; return None if it has none."""
    held = attributes(thing)
    if held is None:
        return None
    put, drop = lambda k, v: dict.__setitem__(held, k, v), lambda k: dict.pop(held, k, None)
    return Named(dict(held), lambda: dict(held), put, drop, flags=True)


def slots_of(thing: Any) -> Kept | None:
    """Save the slots of an object; return None if it has none."""
    known = members(type(thing))
    if not known:
        return None
    return Named(
        slots(thing),
        lambda: slots(thing),
        lambda name, value: known[name].__set__(thing, value),
        lambda name: known[name].__delete__(thing),
        flags=True,
    )


def class_of(kind: type) -> Kept:
    """Save the attributes of a class."""
    return Named(
        dict(vars(kind)),
        lambda: dict(vars(kind)),
        lambda name, value: type.__setattr__(kind, name, value),
        lambda name: type.__delattr__(kind, name),
        flags=True,
    )


def names_in(space: dict[str, Any], names: Iterable[str]) -> Kept:
    """Save some globals of a module."""
    some = frozenset(names)

    def now() -> dict[str, Any]:
        return {name: space[name] for name in some if name in space}

    return Named(now(), now, space.__setitem__, lambda name: space.pop(name, None), flags=True)


def cells_of(function: types.FunctionType) -> Kept | None:
    """Save the closure values of a function; return None if it has no closure."""
    cells = function.__closure__
    if not cells:
        return None

    def put(number: int, value: Any) -> None:
        cells[number].cell_contents = value

    def drop(number: int) -> None:
        del cells[number].cell_contents

    return Named(contents(function), lambda: contents(function), put, drop)
