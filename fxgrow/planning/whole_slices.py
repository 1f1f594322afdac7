"""Edit slices that take a whole axis, such as `x[:, :8]` with eight channels, so that they still do after a growth."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx

from ..capture.program.program import Ref
from ..plans.plan import Path
from .arguments import scalar

Env = Mapping[fx.Node, Any]


def whole_slices(node: fx.Node, old: Env, new: Env) -> dict[Path, object]:
    """Return the new numbers in a subscript, by path, with which its slices still take a whole axis after a growth.

    PyTorch runs no operator for a slice that takes a whole axis, so no rule predicts these numbers. `old` and `new` map
    nodes to what they return before and after the growth.
    """
    if node.target is not operator.getitem or not isinstance(node.args[0], fx.Node):
        return {}
    before, after = old[node.args[0]], new[node.args[0]]
    if not (isinstance(before, Ref) and isinstance(after, Ref)):
        return {}
    found: dict[Path, object] = {}
    for path, part, axis in _slices(node.args[1], len(before.value.shape)):
        was, now = before.value.shape[axis], after.value.shape[axis]
        if was == now or not _takes_all(part, was, old):
            continue
        if not _takes_all(slice(part.start, None), now, new):
            found[(*path, "start")] = -now
        if not _takes_all(slice(None, part.stop), now, new):
            found[(*path, "stop")] = now
    return found


def _slices(subscript: Any, rank: int) -> Iterator[tuple[Path, slice, int]]:
    """Yield the slices of a subscript, each with its path in the arguments and the axis that it applies to."""
    whole = isinstance(subscript, tuple | list)
    items = list(subscript) if whole else [subscript]
    axis, taken = 0, sum(item is not Ellipsis and item is not None for item in items)
    for number, item in enumerate(items):
        if isinstance(item, slice):
            yield ("args", 1, number) if whole else ("args", 1), item, axis
        axis += rank - taken if item is Ellipsis else item is not None


def _takes_all(part: slice, size: int, env: Env) -> bool:
    """Return whether a slice takes every unit of an axis, in order."""
    ends = (part.start, part.stop, part.step)
    numbers = [None if end is None else scalar(end, env) for end in ends]
    if any(not isinstance(number, int) and end is not None for number, end in zip(numbers, ends, strict=True)):
        return False
    return range(*slice(*numbers).indices(size)) == range(size)
