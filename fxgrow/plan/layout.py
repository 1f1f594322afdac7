"""Layouts: where old and new units of an axis lie after a growth. Plain data; the arithmetic gives index lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod


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


Layout = Leaf | Still | Grid | Chain


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
        case Chain():
            return sum(size(p, new=new) for p in layout.parts)


def leaves(layout: Layout) -> Iterator[Leaf]:
    """Growing sets, from left to right."""
    match layout:
        case Leaf():
            yield layout
        case Grid() | Chain():
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
        case Chain():
            out: list[int] = []
            start = 0
            for part in layout.parts:
                out.extend(start + i for i in old_positions(part))
                start += size(part, new=True)
            return out


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
        case Chain():
            out, seen = [], 0
            for part in layout.parts:
                inner, count = _coordinates(part, number - seen)
                out.extend(inner if 0 <= number - seen < count else [-1] * len(inner))
                seen += count
            return out, seen


def partners(layout: Layout, number: int) -> tuple[list[int], list[int], list[int]]:
    """The new block of growing set `number`: positions of left halves, of right halves, and of units without a twin.

    Twins differ in this coordinate only, so in a product each stays within its group.
    """
    leaf = list(leaves(layout))[number]
    pairs = (leaf.new - leaf.old) // 2
    stride = _stride(layout, number)
    left: list[int] = []
    right: list[int] = []
    lone: list[int] = []
    for position, unit in enumerate(coordinates(layout, number)):
        fresh = unit - leaf.old
        if fresh < 0:
            continue
        if fresh >= 2 * pairs:
            lone.append(position)
        elif fresh % 2 == 0:
            left.append(position)
            right.append(position + stride)
    return left, right, lone


def units(layout: Layout, number: int) -> list[list[int]]:
    """For each unit of growing set `number`, old ones first, its positions; those of two units differ in this
    coordinate only, in the same order."""
    leaf = list(leaves(layout))[number]
    found: list[list[int]] = [[] for _ in range(leaf.new)]
    for position, unit in enumerate(coordinates(layout, number)):
        if unit >= 0:
            found[unit].append(position)
    return found


def _stride(layout: Layout, number: int) -> int:
    """How far apart neighbours in one growing set lie."""
    match layout:
        case Grid():
            seen = 0
            for k, part in enumerate(layout.parts):
                count = sum(1 for _ in leaves(part))
                if number < seen + count:
                    inner = prod(size(p, new=True) for p in layout.parts[k + 1 :])
                    return inner * _stride(part, number - seen)
                seen += count
        case Chain():
            seen = 0
            for part in layout.parts:
                count = sum(1 for _ in leaves(part))
                if number < seen + count:
                    return _stride(part, number - seen)
                seen += count
        case Leaf() | Still():
            pass
    return 1
