"""Clear `functools.lru_cache` caches that tracing or recording has filled with stand-ins (fake tensors or fx proxies).

A cached function that is called during a trace stores the stand-in that it computed, and would later return it to the
user's own model.
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
"""The class of the functions that `functools.lru_cache` returns."""


class Caches:
    """All `lru_cache` functions of the process, with their numbers of misses at the last check."""

    def __init__(self) -> None:
        self._known = {id(cached): (cached, cached.cache_info().misses) for cached in _PROCESS.caches()}
        self._users = [cached for cached, _ in self._known.values() if not _is_of_a_library(cached)]

    def clean(self, *, every: bool = False) -> None:
        """Clear each cache that has stored a stand-in since the last check; all others are kept.

        Args:
            every: also check the caches of torch, sympy and Python itself, and caches created since.
        """
        for cached in _PROCESS.caches() if every else self._users:
            _, before = self._known.get(id(cached), (None, 0))
            misses = cached.cache_info().misses
            if misses != before and holds_stand_in(cached):
                cached.cache_clear()
            self._known[id(cached)] = cached, cached.cache_info().misses


def _is_of_a_library(cached: Any) -> bool:
    """Return whether a cached function belongs to a library, so that user code is unlikely to call it directly."""
    return str(getattr(cached, "__module__", "")).partition(".")[0] in _LIBRARIES


_LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "sympy", "mpmath", "numpy", "triton", "fxgrow"})


@contextmanager
def caches_kept_clean() -> Iterator[Caches]:
    """Clear, on exit, all caches that have stored a stand-in inside this context."""
    caches = Caches()
    try:
        yield caches
    finally:
        caches.clean(every=True)


class _Process:
    """The registry of all caches of the process. It searches for them only if one was created since the last search.

    Each cache holds a reference to its class: if the reference count of the class equals the number of known caches
    plus `_others` (all other references), there is no new cache.
    """

    def __init__(self) -> None:
        self._found: list[weakref.ref[Any]] = []
        self._others = -1

    def caches(self) -> list[Any]:
        """Return all caches that are alive."""
        alive = [cached for ref in self._found if (cached := ref()) is not None]
        if self._others >= 0 and sys.getrefcount(CACHED) == len(alive) + self._others:
            return alive
        before = sys.getrefcount(CACHED)
        # Unlike `gc.get_objects`, this does not return objects that another thread is still constructing.
        alive = [thing for thing in gc.get_referrers(CACHED) if type(thing) is CACHED]
        self._found = [weakref.ref(cached) for cached in alive]
        self._others = before - len(alive) if before == sys.getrefcount(CACHED) and _counts() else -1
        return alive


def _counts() -> bool:
    """Return whether an instance adds to the reference count of its class, which is not so in every build of Python."""
    before = sys.getrefcount(CACHED)
    one = functools.lru_cache(lambda: None)
    return sys.getrefcount(CACHED) == before + 1 and one is not None


_PROCESS = _Process()


def holds_stand_in(cached: Any) -> bool:
    """Return whether a key or a result in a cache is or contains a fake tensor or a proxy."""
    function = getattr(cached, "__wrapped__", None)
    return any(is_stand_in(thing) for thing in gc.get_referents(cached) if thing is not function)
