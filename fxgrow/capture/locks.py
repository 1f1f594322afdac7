"""Locks around process-wide state of torch: the patches of torch.fx, and the dispatch modes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Lock:
    """A reentrant lock that is released in a forked child, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def is_mine(self) -> bool:
        """Return whether the current thread holds the lock."""
        held: tuple[object, ...] = getattr(self._held, "locks", ())
        return bool(held) and held[-1] is self._lock

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._held.locks = (*getattr(self._held, "locks", ()), lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        *rest, last = self._held.locks  # the lock that was acquired: a fork may have replaced `_lock` since
        self._held.locks = tuple(rest)
        last.release()


ONE_AT_A_TIME = Lock()
"""The lock for tracing, recording and planning, which may run each other and share caches. Threads that only run models
never acquire it."""


def one_at_a_time(verb: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that only one thread at a time runs it."""

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if ONE_AT_A_TIME.is_mine():
            return verb(*args, **kwargs)
        with ONE_AT_A_TIME:
            return verb(*args, **kwargs)

    return run
