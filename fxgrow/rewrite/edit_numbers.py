"""Edits numbers in the arguments of fx nodes, both constants and computed numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

from torch import fx

from ..planning.arguments import argument
from ..planning.computed_numbers import Change
from ..plans import NodeEdit
from ..plans.plan import FOLLOWED, Path

Places = tuple[tuple[str, Path, Change], ...]


class Numbers:
    """Replaces computed numbers in the arguments of consumers; consumers of equal numbers share one computation."""

    def __init__(self, nodes: dict[str, fx.Node]) -> None:
        self.nodes = nodes
        self._made: dict[tuple[fx.Node, object], fx.Node] = {}
        self._left: list[fx.Node] = []

    def edit(self, edit: NodeEdit) -> None:
        """Apply one edit of a computed number."""
        kind, *place = edit.path
        consumer = self.nodes[edit.node]
        number = argument(consumer, tuple(place))
        made = self._shared(number, edit.new) if kind == FOLLOWED else self._recomputed(number, cast(Any, edit.new))
        whole = replaced({"args": consumer.args, "kwargs": consumer.kwargs}, tuple(place), made)
        consumer.args, consumer.kwargs = whole["args"], whole["kwargs"]
        self._left.append(number)

    def clear(self) -> None:
        """Remove arithmetic whose result is no longer used."""
        while self._left:
            node = self._left.pop()
            if not node.users and node.op in ("call_function", "call_method") and not node._erased:
                self._left.extend(node.all_input_nodes)
                node.graph.erase_node(node)

    def _shared(self, number: fx.Node, by: object) -> fx.Node:
        if (number, by) not in self._made:
            self._made[number, by] = self._follow(number, cast(Any, by))
        return self._made[number, by]

    def _recomputed(self, number: fx.Node, places: Places) -> fx.Node:
        if (number, places) not in self._made:
            self._made[number, places] = self._recompute(number, places)
        return self._made[number, places]

    def _follow(self, number: fx.Node, by: tuple[int | float, int, int | float]) -> fx.Node:
        """Add nodes that multiply a number by a factor, divide it by a divisor and add a difference."""
        factor, divisor, difference = by
        steps: list[tuple[Callable[..., Any], int | float]] = []
        steps += [(operator.mul, factor)] if factor != 1 else []
        steps += [(operator.floordiv, divisor)] if divisor != 1 else []
        steps += [(operator.add, difference)] if difference else []
        made = number
        for function, operand in steps:
            with number.graph.inserting_after(made):
                last, made = made, number.graph.call_function(function, (made, operand))
            made.meta = dict(last.meta)
        return made

    def _recompute(self, number: fx.Node, places: Places) -> fx.Node:
        """Copy the arithmetic that computes a number, with some of its numbers changed."""
        changed: dict[str, list[tuple[Path, Change]]] = {}
        for name, path, value in places:
            changed.setdefault(name, []).append((path, value))
        copies: dict[fx.Node, fx.Node] = {}
        for node in behind(number, {self.nodes[name] for name in changed}):
            with number.graph.inserting_after(number if not copies else next(reversed(copies.values()))):
                copy = number.graph.node_copy(node, lambda n: copies.get(n, n))
            whole: Any = {"args": copy.args, "kwargs": copy.kwargs}
            for path, value in changed.get(node.name, ()):
                done = isinstance(value, tuple)  # relative to the current number
                whole = replaced(whole, path, self._shared(argument(node, path), value) if done else value)
            copy.args, copy.kwargs = whole["args"], whole["kwargs"]
            copies[node] = copy
        return copies[number]


def behind(number: fx.Node, changed: set[fx.Node]) -> list[fx.Node]:
    """Return a number, the changing nodes, and all nodes between them, inputs first."""
    needs: dict[fx.Node, bool] = {}
    stack = [number]
    while stack:
        node = stack[-1]
        waiting = [n for n in node.all_input_nodes if n not in needs]
        if waiting and node not in needs:
            stack.extend(waiting)
            continue
        stack.pop()
        needs[node] = node in changed or any(needs[n] for n in node.all_input_nodes)
    return [node for node, needed in needs.items() if needed]


def replaced(thing: Any, path: Path, value: object) -> Any:
    """Return a tree with the value at one path replaced; containers on the path are rebuilt."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(thing, slice):
        parts = {"start": thing.start, "stop": thing.stop, "step": thing.step}
        parts[str(key)] = replaced(parts[str(key)], rest, value)
        return slice(parts["start"], parts["stop"], parts["step"])
    if isinstance(thing, dict):
        return {**thing, str(key): replaced(thing.get(str(key)), rest, value)}
    items = [replaced(v, rest, value) if k == key else v for k, v in enumerate(thing)]
    return tuple(items) if isinstance(thing, tuple) else items
