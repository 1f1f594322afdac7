"""Layouts: where old and new units of an axis lie after a growth. Plain data; the arithmetic gives index lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import prod
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A growing set of units: old ones first and in order, then the new ones, twins side by side.

    `state` says what the new block holds (a `State` by value). `source` is the copy map: for each new unit the old one
    that it is a copy of.
    """

    old: int
    new: int
    state: str
    source: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Still:
    """Units that stay as they are."""

    size: int


@dataclass(frozen=True, slots=True)
class Grid:
    """A row-major product."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A concatenation."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Woven:
    """Layouts that take turns, in `old` rounds before and `new` rounds after: (d 3) with a state for each of the three
    is woven of three d, a unit of each at a time."""

    parts: tuple[Layout, ...]
    old: int
    new: int


Layout = Leaf | Still | Grid | Chain | Woven


@dataclass(frozen=True, slots=True)
class AxisGrowth:
    """How one axis of a tensor changes."""

    axis: int
    layout: Layout


def size(layout: Layout, *, new: bool) -> int:
    """Units before or after."""
    match layout:
        case Leaf():
            return layout.new if new else layout.old
        case Still():
            return layout.size
        case Grid():
            return prod(size(p, new=new) for p in layout.parts)
        case Chain() | Woven():
            return sum(size(p, new=new) for p in layout.parts)


def leaves(layout: Layout) -> Iterator[Leaf]:
    """Growing sets, from left to right."""
    match layout:
        case Leaf():
            yield layout
        case Grid() | Chain() | Woven():
            for part in layout.parts:
                yield from leaves(part)
        case Still():
            return


def old_positions(layout: Layout) -> list[int]:
    """For each old unit, where it lies afterwards."""
    match layout:
        case Leaf():
            return list(range(layout.old))
        case Still():
            return list(range(layout.size))
        case Grid():
            rows = [0]
            for part in layout.parts:
                width, inner = size(part, new=True), old_positions(part)
                rows = [r * width + i for r in rows for i in inner]
            return rows
        case Chain() | Woven():
            found: list[list[int]] = []
            start = 0
            for part in layout.parts:
                found.append([start + i for i in old_positions(part)])
                start += size(part, new=True)
            if isinstance(layout, Chain):
                return list(chain(*found))
            to = turned(layout)
            return [to[i] for i in woven(found, layout.old)]


def turned(layout: Woven) -> list[int]:
    """For each unit afterwards, counted part after part, where it lies when the parts take turns."""
    ends = list(accumulate((size(part, new=True) for part in layout.parts), initial=0))
    order = woven([range(a, b) for a, b in pairwise(ends)], layout.new)
    return sorted(range(len(order)), key=order.__getitem__)


def woven(rows: Sequence[Sequence[T]], rounds: int) -> list[T]:
    """Rows that take turns."""
    steps = [len(row) // rounds for row in rows]
    turns = range(rounds)
    return [x for n in turns for row, step in zip(rows, steps, strict=True) for x in row[n * step : (n + 1) * step]]


def coordinates(layout: Layout, number: int) -> list[int]:
    """For each unit afterwards, its coordinate in growing set `number` (from the left); -1 where it has none."""
    return _coordinates(layout, number)[0]


def _coordinates(layout: Layout, number: int) -> tuple[list[int], int]:
    """Coordinates, and how many growing sets the layout holds."""
    match layout:
        case Leaf():
            return (list(range(layout.new)) if number == 0 else [-1] * layout.new), 1
        case Still():
            return [-1] * layout.size, 0
        case Grid():
            rows, seen = [-1], 0
            for part in layout.parts:
                inner, count = _coordinates(part, number - seen)
                mine = 0 <= number - seen < count
                rows = [i if mine else r for r in rows for i in inner]
                seen += count
            return rows, seen
        case Chain() | Woven():
            found, seen = [], 0
            for part in layout.parts:
                inner, count = _coordinates(part, number - seen)
                found.append(inner if 0 <= number - seen < count else [-1] * len(inner))
                seen += count
            return (woven(found, layout.new) if isinstance(layout, Woven) else list(chain(*found))), seen


def partners(layout: Layout, number: int) -> tuple[list[int], list[int], list[int]]:
    """The new block of growing set `number`: positions of left halves, of right halves, and of units without a twin.

    Twins differ in this coordinate only, so in a product each stays within its group.
    """
    leaf = list(leaves(layout))[number]
    paired = leaf.new - (leaf.new - leaf.old) % 2
    rows = units(layout, number)
    left, right = chain(*rows[leaf.old : paired : 2]), chain(*rows[leaf.old + 1 : paired : 2])
    pairs = sorted(zip(left, right, strict=True))
    return [a for a, _ in pairs], [b for _, b in pairs], [position for row in rows[paired:] for position in row]


def units(layout: Layout, number: int) -> list[list[int]]:
    """For each unit of growing set `number`, old ones first, its positions; those of two units differ in this
    coordinate only, in the same order."""
    leaf = list(leaves(layout))[number]
    found: list[list[int]] = [[] for _ in range(leaf.new)]
    for position, unit in enumerate(coordinates(layout, number)):
        if unit >= 0:
            found[unit].append(position)
    return found
