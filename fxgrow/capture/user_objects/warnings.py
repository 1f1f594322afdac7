"""Suppress the warnings of user code while it is recorded; it will issue them when it runs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _InThisThread:
    """A replacement for the regular expression of a warnings filter, which matches any text, but only in one thread.

    `warnings.catch_warnings` replaces the filters of all threads, and restores a list that another thread may have
    replaced meanwhile. Here a single filter is added and removed; in a copy of the list it matches nothing afterwards.
    """

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()

    def match(self, text: str) -> bool:
        """Return whether the current thread is the filter's, like `match` of a compiled pattern."""
        return self.thread == threading.get_ident()


@contextmanager
def silent() -> Iterator[None]:
    """Ignore warnings in this thread. Warnings of other threads and all other filters are not affected.

    Ignored warnings are not registered as already shown, so the user's own call shows them.
    """
    here = _InThisThread()
    added = ("ignore", here, Warning, None, 0)
    _filters().insert(0, added)
    try:
        yield
    finally:
        here.thread = None
        filters = _filters()
        if added in filters:
            filters.remove(added)


def _filters() -> list[Any]:
    found: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()  # of the context, from Python 3.14
    assert isinstance(found, list)
    return found
