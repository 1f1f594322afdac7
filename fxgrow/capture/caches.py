"""Caches of the user's functions (`functools.lru_cache`) that tracing or recording has filled with stand-ins.

A function that is called with a fake tensor, or with a proxy of torch.fx, remembers what it made of it, and would
return that to the user's own model for ever after.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .stand_ins import is_stand_in

CACHED: type[Any] = type(functools.lru_cache(lambda: None))
"""The class of functions that `functools.lru_cache` makes."""


class Caches:
    """The caches of a process, and how often each had to call its function so far."""

    def __init__(self) -> None:
        self._known = {id(cached): (cached, cached.cache_info().misses) for cached in _caches()}

    def clean(self, *, new: bool = False) -> None:
        """Empty each cache that has got a stand-in since; all others keep what they hold.

        Args:
            new: also look at caches that have been made since.
        """
        some = _caches() if new else [cached for cached, _ in self._known.values()]
        for cached in some:
            _, before = self._known.get(id(cached), (None, 0))
            misses = cached.cache_info().misses
            if misses != before and holds_stand_in(cached):
                cached.cache_clear()
            self._known[id(cached)] = cached, cached.cache_info().misses


@contextmanager
def caches_kept_clean() -> Iterator[Caches]:
    """Afterwards no cache holds a stand-in that it has got while this lasted."""
    caches = Caches()
    try:
        yield caches
    finally:
        caches.clean(new=True)


def _caches() -> list[Any]:
    """Every cache of the process. Unlike `gc.get_objects`, this holds no object that another thread is making."""
    return [thing for thing in gc.get_referrers(CACHED) if type(thing) is CACHED]


def holds_stand_in(cached: Any) -> bool:
    """Whether a key or a result in a cache is, or holds, a fake tensor or a proxy."""
    function = getattr(cached, "__wrapped__", None)
    return any(is_stand_in(thing) for thing in gc.get_referents(cached) if thing is not function)
