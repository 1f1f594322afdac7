"""A tracer that records errors that `forward` may catch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch import fx

from ..source_lines import user_place

T = TypeVar("T")


class ErrorTracker(fx.Tracer):
    """A tracer that records an error raised by a proxy, as `forward` may catch it and take another path."""

    noted_error: Exception | None = None
    follows_dtypes = False
    """Whether the dtype of a buffer is read when the graph runs."""
    _noted_at: object = None

    def note_error(self, error: Exception) -> None:
        """Record an error, and the place in user code that it comes from."""
        self.noted_error, self._noted_at = error, user_place(sys._getframe(1))

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Create a node. Some torch functions ask for a number, catch the error and become a node: the error is then
        dropped."""
        if self.noted_error is not None and user_place(sys._getframe(1)) == self._noted_at:
            self.noted_error = None
        return super().create_node(*args, **kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Convert a proxy to bool, recording any error."""
        return self._asked(lambda: super(ErrorTracker, self).to_bool(obj))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over a proxy, recording any error."""
        return self._asked(lambda: super(ErrorTracker, self).iter(obj))

    def _asked(self, ask: Callable[[], T]) -> T:
        """Run a conversion of a proxy, recording any error."""
        try:
            return ask()
        except Exception as error:
            self.note_error(error)
            raise
