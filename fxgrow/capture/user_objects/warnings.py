"""Warnings that code of the user's gives while it is recorded: it will give them when it runs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _InThisThread:
    """Stands for the pattern of a filter: it matches every text, in one thread, until it is told to stop.

    `warnings.catch_warnings` exchanges the filters of all threads and puts back a list that another thread may have
    exchanged since. This adds one filter and takes the same one out; where it got into a copy, it matches nothing.
    """

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()

    def match(self, text: str) -> bool:
        """As of a compiled pattern."""
        return self.thread == threading.get_ident()


@contextmanager
def silent() -> Iterator[None]:
    """No warning is given in this thread, nor made an error. Other threads' warnings and all filters stay.

    What is left out here is not noted as given, so it is given when the user's own call comes to it.
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
    found: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()  # a context's own, from Python 3.14
    assert isinstance(found, list)
    return found
