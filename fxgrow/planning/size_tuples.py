"""Edit sizes that a call takes as one assembled tuple, as in `x.view(x.size()[:-1] + (heads, width))`."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

from torch import fx

from ..plans.plan import RECOMPUTED, NodeEdit, Path
from .arguments import argument, equal_numbers, is_tuple
from .computed_numbers import Place, Sight, Value, factors_of, follows_input, given, targets_of


def together(consumer: fx.Node, path: Path, sizes: fx.Node, wanted: Any, sight: Sight) -> Iterator[NodeEdit]:
    """Yield the edits that give new elements to a tuple argument, best first.

    The tuple is recomputed with other numbers where its elements are written or, if it does not vary with the sizes of
    the input, replaced by a constant.
    """
    rows = [see(sizes) for see in (sight.old, sight.new, sight.second_old, sight.second_new)]
    if not all(is_tuple(row) and len(row) == len(wanted) for row in rows):
        return
    changes = [
        _change(sizes, k, numbers, want, sight)
        for k, (want, *numbers) in enumerate(zip(wanted, *rows, strict=True))
        if not equal_numbers([numbers[1]], [want])
    ]
    places = tuple(change for change in changes if change is not None)
    if len(places) == len(changes):
        yield NodeEdit(consumer.name, (RECOMPUTED, *path), str(sizes), places)
    old, now, second, second_now = map(list, rows)
    fixed = equal_numbers(old, second) and equal_numbers(now, second_now) and not follows_input(sizes, sight)
    if fixed and not given(sizes, sight.old):
        yield NodeEdit(consumer.name, path, str(sizes), wanted)


def _change(sizes: fx.Node, k: int, rows: list[Any], want: Any, sight: Sight) -> Place | None:
    """Return the change that gives an element of a tuple the wanted value; None if none is known.

    `rows` holds the element before and after the growth at the example's sizes, then the same at the second sizes.
    """
    found = _place_of(sizes, k, sight.old)
    if found is None:
        return None
    node, place = found
    number = argument(node, place)
    if not isinstance(number, fx.Node):
        return node.name, place, want
    if given(number, sight.old):
        return None
    old, now, second, second_now = rows
    if equal_numbers([old], [second]) and follows_input(number, sight):  # it varies, but is equal at these two sizes
        return None
    ways = (factor for target in targets_of(old, second, want) for factor in factors_of(now, want, second_now, target))
    change = next(ways, None)
    return None if change is None else (node.name, place, change)


def _place_of(sizes: fx.Node, k: int, see: Value) -> tuple[fx.Node, Path] | None:
    """Return where element `k` of a tuple is written: the node that assembles the tuple, and the path in its arguments.

    Returns None if the element is not written in the graph, such as one of `x.size()`.
    """
    part: Any = None
    path: Path = ("args", 0)
    if sizes.target is operator.add and len(sizes.args) == 2:
        left = len(_seen(sizes.args[0], see))
        part, path, k = (sizes.args[0], path, k) if k < left else (sizes.args[1], ("args", 1), k - left)
    elif sizes.target is operator.getitem and isinstance(sizes.args[1], slice):
        cut: Any = sizes.args[1]
        if any(isinstance(end, fx.Node) for end in (cut.start, cut.stop, cut.step)):
            return None
        part = sizes.args[0]
        k = range(len(_seen(part, see)))[cut][k]
    if isinstance(part, fx.Node):
        return _place_of(part, k, see)
    return (sizes, (*path, k)) if isinstance(part, tuple | list) else None


def _seen(part: Any, see: Value) -> Any:
    """Return the value of an argument that may be a node."""
    return see(part) if isinstance(part, fx.Node) else part
