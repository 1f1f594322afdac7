"""Caches of the user's functions (`functools.lru_cache`) that tracing or recording has filled with stand-ins.

A function that is called with a fake tensor, or with a proxy of torch.fx, remembers what it made of it, and would
return that to the user's own model for ever after.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .stand_ins import is_stand_in

CACHED: type[Any] = type(functools.lru_cache(lambda: None))
"""The class of functions that `functools.lru_cache` makes."""


class Caches:
    """The caches of a process, and how often each had to call its function so far."""

    def __init__(self) -> None:
        self._known = {id(cached): (cached, cached.cache_info().misses) for cached in _PROCESS.caches()}
        self._users = [cached for cached, _ in self._known.values() if not _is_of_a_library(cached)]

    def clean(self, *, every: bool = False) -> None:
        """Empty each cache that has got a stand-in since; all others keep what they hold.

        Args:
            every: also look at the caches of torch, sympy and Python itself, and at those that have been made since.
        """
        for cached in _PROCESS.caches() if every else self._users:
            _, before = self._known.get(id(cached), (None, 0))
            misses = cached.cache_info().misses
            if misses != before and holds_stand_in(cached):
                cached.cache_clear()
            self._known[id(cached)] = cached, cached.cache_info().misses


def _is_of_a_library(cached: Any) -> bool:
    """Whether user code is not likely to call a function: there are hundreds."""
    return str(getattr(cached, "__module__", "")).partition(".")[0] in _LIBRARIES


_LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "sympy", "mpmath", "numpy", "triton", "fxgrow"})


@contextmanager
def caches_kept_clean() -> Iterator[Caches]:
    """Afterwards no cache holds a stand-in that it has got while this lasted."""
    caches = Caches()
    try:
        yield caches
    finally:
        caches.clean(every=True)


class _Process:
    """Every cache of the process, looked for among all objects only where one has been made since.

    Each cache counts as a reference to its class: where there are as many of them as caches that are known, beside
    `_others`, there is no other cache.
    """

    def __init__(self) -> None:
        self._found: list[weakref.ref[Any]] = []
        self._others = -1

    def caches(self) -> list[Any]:
        """All that are alive."""
        alive = [cached for ref in self._found if (cached := ref()) is not None]
        if self._others >= 0 and sys.getrefcount(CACHED) == len(alive) + self._others:
            return alive
        before = sys.getrefcount(CACHED)
        # Unlike `gc.get_objects`, this holds no object that another thread is making.
        alive = [thing for thing in gc.get_referrers(CACHED) if type(thing) is CACHED]
        self._found = [weakref.ref(cached) for cached in alive]
        self._others = before - len(alive) if before == sys.getrefcount(CACHED) and _counts() else -1
        return alive


def _counts() -> bool:
    """Whether an instance counts as a reference to its class. It does not in every build of Python."""
    before = sys.getrefcount(CACHED)
    one = functools.lru_cache(lambda: None)
    return sys.getrefcount(CACHED) == before + 1 and one is not None


_PROCESS = _Process()


def holds_stand_in(cached: Any) -> bool:
    """Whether a key or a result in a cache is, or holds, a fake tensor or a proxy."""
    function = getattr(cached, "__wrapped__", None)
    return any(is_stand_in(thing) for thing in gc.get_referents(cached) if thing is not function)
