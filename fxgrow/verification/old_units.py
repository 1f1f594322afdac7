"""Positions of the old units of a tensor in its grown form, and how to read their values from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

import torch
from torch import Tensor

from ..dims.axis import Atom, Axis, Fixed, Product, Sum
from ..plans import Chain, Grid, Layout, Leaf, Still, Woven
from ..plans.layout import leaves, size, turned, woven

Fibres = tuple[tuple[int, ...], ...]
"""For each old unit, its positions in the grown axis: one, or several that share the unit's value."""
MOST_WAYS = 16
"""The largest number of ways to read one axis that are tried; an axis may hold several shared sets of units."""


@dataclass(frozen=True, slots=True)
class Places:
    """The positions of the old units of one tensor in its grown form.

    `axes` holds, for each axis, the ways in which its old units can be read; empty if the axis did not grow.
    """

    shape: tuple[int, ...]
    """Shape of the grown tensor."""
    axes: tuple[tuple[Fibres, ...], ...]
    scale: float = 1.0
    """The factor by which the growth multiplied all entries."""

    def readings(self, grown: Tensor) -> Iterator[Tensor]:
        """Yield the old units of a grown tensor, once for each way in which they can be read."""
        for ways in product(*(axis or (None,) for axis in self.axes)):
            yield _read(grown, ways) / self.scale

    def then(self, later: Places) -> Places:
        """Return the positions after one more growth of the grown tensor."""
        axes = tuple(_composed(a, b) for a, b in zip(self.axes, later.axes, strict=True))
        return Places(later.shape, axes, self.scale * later.scale)


def as_before(shape: tuple[int, ...]) -> Places:
    """Return the positions of units that did not move."""
    return Places(tuple(shape), ((),) * len(shape))


def leading(old: tuple[int, ...], new: tuple[int, ...]) -> Places | None:
    """Return positions with the old units first along every axis; None if there are fewer units than before."""
    if len(old) != len(new) or any(a > b for a, b in zip(old, new, strict=True)):
        return None
    axes = tuple(() if a == b else (_first(a),) for a, b in zip(old, new, strict=True))
    return Places(tuple(new), axes)


def fitted(places: Places, old: tuple[int, ...], new: tuple[int, ...]) -> Places | None:
    """Return the same positions for a tensor that may hold a different number of units after the old ones."""
    front = leading(old, new)
    if front is None or len(places.shape) != len(new):
        return None
    rows = zip(places.axes, front.axes, places.shape, new, strict=True)
    return replace(front, axes=tuple(axis if a == b else first for axis, first, a, b in rows), scale=places.scale)


def layout_of(axis: Axis, growing: Mapping[Atom, Leaf], sizes: Sequence[int]) -> Layout:
    """Convert an axis expression to a layout."""
    match axis:
        case Atom(index):
            return growing.get(axis, Still(sizes[index]))
        case Fixed(units):
            return Still(units)
        case Product(parts):
            return Grid(tuple(layout_of(p, growing, sizes) for p in parts))
        case Sum(parts):
            return Chain(tuple(layout_of(p, growing, sizes) for p in parts))


def ways(layout: Layout) -> tuple[Fibres, ...]:
    """Return the ways to read the old units of an axis: each shared set read alone, or as the sum of its shares."""
    shared = [k for k, leaf in enumerate(leaves(layout)) if leaf.source]
    if 2 ** len(shared) > MOST_WAYS:
        choices = [frozenset[int](), frozenset(shared)]
    else:
        rows = product((False, True), repeat=len(shared))
        choices = [frozenset(k for k, taken in zip(shared, row, strict=True) if taken) for row in rows]
    return tuple(dict.fromkeys(_fibres(layout, some, 0)[0] for some in choices))


def _fibres(layout: Layout, shared: frozenset[int], seen: int) -> tuple[Fibres, int]:
    """Return the fibres of a layout whose leaves are counted from `seen`, and its number of leaves."""
    match layout:
        case Leaf():
            more: dict[int, tuple[int, ...]] = {}
            for k, unit in enumerate(layout.source if seen in shared else ()):
                more[unit] = (*more.get(unit, ()), layout.old + k)
            return tuple((unit, *more.get(unit, ())) for unit in range(layout.old)), 1
        case Still():
            return _first(layout.size), 0
        case Grid():
            rows: Fibres = ((0,),)
            count = 0
            for part in layout.parts:
                inner, held = _fibres(part, shared, seen + count)
                width, count = size(part, new=True), count + held
                rows = tuple(tuple(r * width + i for r in row for i in unit) for row in rows for unit in inner)
            return rows, count
        case Chain() | Woven():
            found: list[Fibres] = []
            start = count = 0
            for part in layout.parts:
                inner, held = _fibres(part, shared, seen + count)
                found.append(tuple(tuple(start + i for i in unit) for unit in inner))
                start, count = start + size(part, new=True), count + held
            if isinstance(layout, Chain):
                return tuple(chain(*found)), count
            to = turned(layout)
            return tuple(tuple(to[i] for i in unit) for unit in woven(found, layout.old)), count


def _first(units: int) -> Fibres:
    return tuple((unit,) for unit in range(units))


def _composed(first: tuple[Fibres, ...], then: tuple[Fibres, ...]) -> tuple[Fibres, ...]:
    if not first or not then:
        return first or then
    found = (tuple(tuple(p for k in fibre for p in b[k]) for fibre in a) for a in first for b in then)
    return tuple(dict.fromkeys(found))[:MOST_WAYS]


def _read(grown: Tensor, ways: Sequence[Fibres | None]) -> Tensor:
    for axis, fibres in enumerate(ways):
        if fibres is None:
            continue
        places = torch.tensor([p for fibre in fibres for p in fibre], dtype=torch.int64, device=grown.device)
        taken = grown.index_select(axis, places)
        if len(places) > len(fibres):
            owner = torch.tensor([k for k, fibre in enumerate(fibres) for _ in fibre], device=grown.device)
            shape = [len(fibres) if k == axis else n for k, n in enumerate(taken.shape)]
            taken = taken.new_zeros(shape).index_add_(axis, owner, taken)
        grown = taken
    return grown
