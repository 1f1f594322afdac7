"""Locks around what torch keeps once for the whole process: the patches of torch.fx, and the modes of dispatch."""

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
    """A reentrant lock that a fork leaves open in the child, whatever the parent's threads held."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def is_mine(self) -> bool:
        """Whether this thread holds it."""
        held: tuple[object, ...] = getattr(self._held, "locks", ())
        return bool(held) and held[-1] is self._lock

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._held.locks = (*getattr(self._held, "locks", ()), lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        *rest, last = self._held.locks  # the one that was acquired, though a fork may have put another in its place
        self._held.locks = tuple(rest)
        last.release()


ONE_AT_A_TIME = Lock()
"""One lock for tracing, recording and planning: user code that torch.fx traces may run operators; and plans, which
record, read and fill what is known of a model. Threads that only run models never take it."""


def one_at_a_time(verb: Callable[P, T]) -> Callable[P, T]:
    """The same function, which threads run in turns."""

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if ONE_AT_A_TIME.is_mine():
            return verb(*args, **kwargs)
        with ONE_AT_A_TIME:
            return verb(*args, **kwargs)

    return run
