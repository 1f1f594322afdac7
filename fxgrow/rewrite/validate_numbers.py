"""Checks a plan's edits of computed numbers, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import fx

from ..planning.arguments import argument, is_number
from ..plans import NodeEdit
from ..plans.plan import FOLLOWED, RECOMPUTED, Path
from .edit_numbers import behind

LARGEST_FACTOR = 2**20
"""The largest factor of a number: two axes that each grow 1024 times."""
CALLS = frozenset({"call_function", "call_method"})


def odd_number(edit: NodeEdit, node: fx.Node) -> Iterator[str]:
    """Describe what is wrong with an edit of a computed number."""
    where = f"the plan edits {_short(edit.node)} at {_short(edit.path)}"
    place = edit.path[1:]
    if len(place) < 2 or place[0] not in ("args", "kwargs"):
        yield f"{where}, which is not an argument"
        return
    right = _is_factor(edit.new) if edit.path[0] == FOLLOWED else _are_places(edit.new)
    if not right:
        yield f"{where}, but {_short(edit.new)} is not a valid change"
        return
    number = _at(node, place)
    if not isinstance(number, fx.Node):
        yield f"{where}, which is not a computed number"
    elif edit.path[0] == RECOMPUTED:
        assert isinstance(edit.new, tuple)
        named = {name for name, _, _ in edit.new}
        found = {n for n in _above(number) if n.name in named}
        if {n.name for n in found} != named or any(n.op not in CALLS for n in behind(number, found)):
            yield f"{where}, through nodes that do not compute it"
        elif not all(_fits(n, path, new) for n in found for name, path, new in edit.new if name == n.name):
            yield f"{where}, through arguments that do not exist"


def _is_factor(new: object) -> bool:
    """Whether an edit has the form (factor, divisor, difference)."""
    if not (isinstance(new, tuple) and len(new) == 3 and all(map(_finite, new))):
        return False
    factor, divisor, difference = new
    whole = isinstance(divisor, int) and 0 < divisor <= LARGEST_FACTOR
    return whole and factor != 0 and abs(factor) <= LARGEST_FACTOR and abs(difference) <= 2**40


def _are_places(new: object) -> bool:
    """Whether an edit is a non-empty tuple of (node, path in its arguments, number)."""
    return isinstance(new, tuple) and bool(new) and all(map(_is_place, new))


def _is_place(place: object) -> bool:
    if not (isinstance(place, tuple) and len(place) == 3):
        return False
    name, path, number = place
    path_right = isinstance(path, tuple) and len(path) > 1 and path[0] in ("args", "kwargs")
    steps = path_right and all(isinstance(key, int | str) for key in path)
    if not isinstance(name, str) or not steps:
        return False
    return _is_factor(number) or (_finite(number) and abs(number) <= 2**40)


def _fits(node: fx.Node, path: Path, new: object) -> bool:
    """Whether a node has a value at a path; a computed number, if a factor is to be applied to it."""
    now = _at(node, path)
    return isinstance(now, fx.Node) if isinstance(new, tuple) else now is not None


def _finite(number: object) -> bool:
    return is_number(number) and not isinstance(number, bool) and math.isfinite(number)  # type: ignore[arg-type]  # it is


def _at(node: fx.Node, path: Path) -> object:
    try:
        return argument(node, path)
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _above(number: fx.Node) -> list[fx.Node]:
    """Return a node and all nodes that it is computed from."""
    found: dict[fx.Node, None] = {}
    queue = [number]
    while queue:
        node = queue.pop()
        if node not in found:
            found[node] = None
            queue.extend(node.all_input_nodes)
    return list(found)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
