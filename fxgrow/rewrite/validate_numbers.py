"""Are a plan's edits of computed numbers what they can be? Asked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import fx

from ..planning.arguments import argument, is_number
from ..plans import NodeEdit
from ..plans.plan import FOLLOWED, RECOMPUTED, Path
from .edit_numbers import behind

LARGEST_FACTOR = 2**20
"""Of a number, what two axes that grow 1024 times each make of it."""
CALLS = frozenset({"call_function", "call_method"})


def odd_number(edit: NodeEdit, node: fx.Node) -> Iterator[str]:
    """What is wrong with an edit of a number that is computed, in words."""
    where = f"the plan edits {_short(edit.node)} at {_short(edit.path)}"
    place = edit.path[1:]
    if len(place) < 2 or place[0] not in ("args", "kwargs"):
        yield f"{where}, which is not an argument"
        return
    right = _is_factor(edit.new) if edit.path[0] == FOLLOWED else _are_places(edit.new)
    if not right:
        yield f"{where}, and {_short(edit.new)} is not arithmetic"
        return
    number = _at(node, place)
    if not isinstance(number, fx.Node):
        yield f"{where}, where no number is computed"
    elif edit.path[0] == RECOMPUTED:
        assert isinstance(edit.new, tuple)
        named = {name for name, _, _ in edit.new}
        found = {n for n in _above(number) if n.name in named}
        if {n.name for n in found} != named or any(n.op not in CALLS for n in behind(number, found)):
            yield f"{where}, by nodes that do not compute it"
        elif not all(_fits(n, path, new) for n in found for name, path, new in edit.new if name == n.name):
            yield f"{where}, by arguments that are not there"


def _is_factor(new: object) -> bool:
    """Whether an edit says (factor, divisor, difference)."""
    if not (isinstance(new, tuple) and len(new) == 3 and all(map(_finite, new))):
        return False
    factor, divisor, difference = new
    whole = isinstance(divisor, int) and 0 < divisor <= LARGEST_FACTOR
    return whole and factor != 0 and abs(factor) <= LARGEST_FACTOR and abs(difference) <= 2**40


def _are_places(new: object) -> bool:
    """Whether an edit says (node, place in its arguments, number), once or more."""
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
    """Whether there is something at a place of a node, and a computed number if a factor is put behind it."""
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
    """A node and all that it is computed from."""
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
