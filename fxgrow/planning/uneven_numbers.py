"""Track numbers that are computed from a width by discontinuous operations: floors, remainders, comparisons, user code.

Such a number may look constant at the recorded sizes and still depend on the width at others: 5 // 8 equals 5 // 16,
but 20 // 8 does not equal 20 // 16. It is preserved by putting the old width into its arithmetic, or checked at sizes
near multiples of the width.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

from torch import fx

from ..capture.program.program import Ref, Value
from ..capture.user_objects.user_code import may_change
from ..functional import numpy_number
from .arguments import equal_numbers, is_number
from .computed_numbers import Sight, reads_of

SMOOTH = frozenset(
    [
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.neg, operator.pos),
        *(operator.getitem, getattr, math.sqrt, math.exp, math.log, math.log2, math.log10, math.pow, math.prod),
        *(float, sum, len, "size", "numel", "nelement", "dim", "__len__"),
    ]
)
_OF_NUMPY = frozenset({"sqrt", "square", "exp", "log", "log2", "log10", "prod", "sum", "mean"})
"""NumPy functions that are smooth, like those in `SMOOTH`. Any other function of a width may be discontinuous."""
MOST_SIZES = 6
"""The largest number of further sizes at which a node is checked."""


class Uneven:
    """The plain values of a graph that are computed from a growing width by discontinuous operations."""

    def __init__(self) -> None:
        self._reading: set[fx.Node] = set()
        self._uneven: set[fx.Node] = set()

    def __contains__(self, node: fx.Node) -> bool:
        return node in self._uneven

    def note(self, node: fx.Node, target: Any, see: Any, changed: bool, beside: bool) -> None:
        """Classify a node; the nodes that it reads must have been classified before.

        Args:
            node: The node.
            target: The callable or method name that it calls.
            see: A function that returns the result of a node.
            changed: Whether the result of the node changes with the growth.
            beside: Whether a tensor that the node reads changes with the growth.
        """
        if not is_plain(see(node)):
            return
        inputs = node.all_input_nodes
        sources = [n for n in inputs if n in self._uneven or (n in self._reading and is_number(see(n)))]
        if changed or sources:
            self._reading.add(node)
        jumps = bool(sources) and not _smooth(target, node)
        own = beside and not isinstance(target, str) and may_change(target)  # user code, which may compute anything
        if jumps or own or any(n in self._uneven for n in inputs):
            self._uneven.add(node)

    def mixed(self, number: fx.Node, sight: Sight) -> bool:
        """Return whether a number is computed discontinuously from more than growing widths that no input changes."""
        reads = list(reads_of(number, sight))
        return number in self._uneven and any(
            n in self._uneven
            or equal_numbers([sight.old(n)], [sight.new(n)])
            or not equal_numbers([sight.old(n)], [sight.second_old(n)])
            for n in reads
        )

    def pinned(self, number: fx.Node, sight: Sight) -> bool:
        """Return whether a number keeps its value if every size that it is computed from keeps its value."""
        return not any(n in self._uneven for n in reads_of(number, sight))


def is_plain(value: Any) -> bool:
    """Return whether a value is a number, or a non-empty tuple or list of numbers."""
    return is_number(value) or (isinstance(value, tuple | list) and bool(value) and all(map(is_number, value)))


def _smooth(target: Any, node: fx.Node) -> bool:
    """Return whether a node applies a smooth function to numbers."""
    if target is numpy_number:
        return node.args[0] in _OF_NUMPY
    try:
        return target in SMOOTH
    except TypeError:  # the callable is not hashable
        return False


Sizes = tuple[int, int, int]
"""A size at the example's inputs, after the growth, and at the second inputs before it."""


def sizes_in(old: Any, new: Any, second: Any) -> Iterator[Sizes]:
    """Yield the `Sizes` of a tensor's axes, or of an integer, from its three values."""
    if isinstance(old, Value | Ref):
        shapes = [x.value.shape if isinstance(x, Ref) else x.shape for x in (old, new, second)]
        yield from zip(*shapes, strict=False)
    elif all(isinstance(x, int) and not isinstance(x, bool) for x in (old, new, second)):
        yield old, new, second


def goals(sizes: Iterable[Sizes], inputs: Iterable[tuple[int, int]]) -> list[dict[tuple[int, int], int]]:
    """Return input sizes at which a number may be discontinuous: they bring a varying size near a multiple of a width.

    Args:
        sizes: The sizes that a node sees.
        inputs: The sizes of the inputs that may vary, as (example's, second).

    Returns:
        One dict for each set of input sizes to try, with the new size of each of `inputs`.
    """
    seen = list(dict.fromkeys(sizes))
    widths = sorted({(old, new) for old, new, second in seen if old != new and old == second})
    follow = [(old, second) for old, new, second in seen if old == new and old != second]
    wanted = [n for old, new in widths for n in (old + 1, old - 1, old, new + 1, 2 * old, old + new - 1)]
    found = []
    for goal in list(dict.fromkeys(wanted))[:MOST_SIZES]:
        tried = {pair: _toward(goal, pair, follow) for pair in inputs}
        if tried and tried not in found:
            found.append(tried)
    return found


def _toward(goal: int, pair: tuple[int, int], follow: list[tuple[int, int]]) -> int:
    """Return the size of an input for which a size that depends on it linearly is close to `goal`."""
    first, second = pair
    if pair in follow or not follow:
        return max(goal, 1)
    old, later = max(follow)
    size = first + (goal - old) * (second - first) / (later - old)
    return max(round(size), 1)
