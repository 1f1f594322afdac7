"""Lists and dicts among the inputs that `forward` writes to and reads again, where the program has the old entries."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from ..errors import Kind, usage

_METHODS = frozenset(
    {"append", "extend", "insert", "pop", "remove", "clear", "reverse", "sort", "update", "setdefault"}
)
"""Methods that write to a list or a dict."""
_RETURNING = frozenset({"pop", "setdefault"})
"""Those that also return an entry."""


class WrittenContainers:
    """Those that nodes have written to so far."""

    def __init__(self) -> None:
        self._keys: dict[int, set[Any]] = {}
        """By identity of a container, the keys of a dict that were written; of a list it holds None."""
        self._alive: list[Any] = []

    def look(self, node: fx.Node, args: Sequence[Any]) -> None:
        """Note what a node writes to.

        Raises:
            UsageError: it reads what was written.
        """
        if not args or not isinstance(args[0], list | dict) or node.op not in ("call_function", "call_method"):
            return
        container = args[0]
        keys = self._keys.get(id(container))
        method = node.op == "call_method" and node.target in _METHODS
        if node.target is operator.setitem or (method and (keys is None or node.target not in _RETURNING)):
            self._alive.append(container)
            plain = node.target is operator.setitem and isinstance(container, dict)
            self._keys.setdefault(id(container), set()).add(args[1] if plain else None)
            return
        if keys is None or (node.target is operator.getitem and None not in keys and args[1] not in keys):
            return
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"node {node.name} reads a {type(container).__name__} among the inputs to which forward has written before",
            where=node.format_node() or node.name,
            hint="write to a new container instead: batch = {**batch, 'features': y}, layers = [*layers, y]",
        )
