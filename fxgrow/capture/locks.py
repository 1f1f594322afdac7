"""Locks around what torch keeps once for the whole process: the patches of torch.fx, and the modes of dispatch."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class Lock:
    """A reentrant lock that a fork leaves open in the child, whatever the parent's threads held."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

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


TRACING = RECORDING = Lock()
"""One lock for both: torch.fx runs no operator while it traces, but user code that it runs may."""
