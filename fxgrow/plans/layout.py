"""Layouts: the positions of old and new units along an axis after a growth, as plain data, and functions that return
them as lists of indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import prod
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A growing set of units: the old ones in their order, then the new ones, the two units of a pair side by side.

    `state` is the value of the `State` of the new units. `source` holds for each new unit the old unit that it is a
    copy of, if they are copies.
    """

    old: int
    new: int
    state: str
    source: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Still:
    """Units of which there are as many after the growth as before."""

    size: int


@dataclass(frozen=True, slots=True)
class Grid:
    """A product of layouts in row-major order."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A concatenation of layouts."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Woven:
    """Interleaved layouts, in `old` rounds before the growth and `new` rounds after it.

    Each round holds an equal share of every part. An axis (d 3) with different states along the 3 consists of three
    layouts of d, of which each round holds one unit each.
    """

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
    """Return the number of units before the growth, or after it if `new`."""
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
    """Yield the growing sets of units, from left to right."""
    match layout:
        case Leaf():
            yield layout
        case Grid() | Chain() | Woven():
            for part in layout.parts:
                yield from leaves(part)
        case Still():
            return


def old_positions(layout: Layout) -> list[int]:
    """Return the position of each old unit after the growth."""
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
    """Return the position after the growth of each unit of interleaved layouts, the units counted part by part."""
    ends = list(accumulate((size(part, new=True) for part in layout.parts), initial=0))
    order = woven([range(a, b) for a, b in pairwise(ends)], layout.new)
    return sorted(range(len(order)), key=order.__getitem__)


def woven(rows: Sequence[Sequence[T]], rounds: int) -> list[T]:
    """Interleave rows in `rounds` rounds, each of which takes an equal share of every row."""
    steps = [len(row) // rounds for row in rows]
    turns = range(rounds)
    return [x for n in turns for row, step in zip(rows, steps, strict=True) for x in row[n * step : (n + 1) * step]]


def coordinates(layout: Layout, number: int) -> list[int]:
    """Return the coordinate of each unit in growing set `number` (from the left) after the growth, or -1 if the unit is
    not in that set."""
    return _coordinates(layout, number)[0]


def _coordinates(layout: Layout, number: int) -> tuple[list[int], int]:
    """Return the coordinates, and the number of growing sets in the layout."""
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
    """Return the positions of the new units of growing set `number`: the left ones of all pairs, the right ones, and
    units that belong to no pair.

    The units of a pair differ in this coordinate only, so that in a product both are in the same group.
    """
    leaf = list(leaves(layout))[number]
    paired = leaf.new - (leaf.new - leaf.old) % 2
    rows = units(layout, number)
    left, right = chain(*rows[leaf.old : paired : 2]), chain(*rows[leaf.old + 1 : paired : 2])
    pairs = sorted(zip(left, right, strict=True))
    return [a for a, _ in pairs], [b for _, b in pairs], [position for row in rows[paired:] for position in row]


def units(layout: Layout, number: int) -> list[list[int]]:
    """Return the positions of each unit of growing set `number`, old units first. The positions of two units are in the
    same order: the k-th ones differ in this coordinate only."""
    leaf = list(leaves(layout))[number]
    found: list[list[int]] = [[] for _ in range(leaf.new)]
    for position, unit in enumerate(coordinates(layout, number)):
        if unit >= 0:
            found[unit].append(position)
    return found
