"""A tracer that notes errors which `forward` may handle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch import fx

from ..source_lines import user_place

T = TypeVar("T")


class ErrorTracker(fx.Tracer):
    """A tracer that remembers what `forward` has asked of stand-ins in vain, as it may go on after that error."""

    noted_error: Exception | None = None
    follows_dtypes = False
    """Whether the dtype of a buffer is read when the graph runs."""
    _noted_at: object = None

    def note_error(self, error: Exception) -> None:
        """Remember it."""
        self.noted_error, self._noted_at = error, user_place(sys._getframe(1))

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node. Functions of torch's ask for numbers, and handle the error: they come to be nodes."""
        if self.noted_error is not None and user_place(sys._getframe(1)) == self._noted_at:
            self.noted_error = None
        return super().create_node(*args, **kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A condition."""
        return self._asked(lambda: super(ErrorTracker, self).to_bool(obj))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """A loop."""
        return self._asked(lambda: super(ErrorTracker, self).iter(obj))

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Exception as error:
            self.note_error(error)
            raise
