"""Draws tensors whose new units are in given states, and determines the states of new units in a tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..plans.layout import Layout, coordinates, leaves, old_positions, partners, size, units
from ..proof.states import State

ROUNDING = 1e-9
"""Entries of two float64 results are equal if they differ by less, relative to the larger or to one. The laws draw
multiples of 1/16 up to 100, for which every sum and product here is exact; functions round to a millionth of it."""

Draw = Callable[[tuple[int, ...], torch.Generator, bool], Tensor]
"""Draws a tensor of a shape. The flag adds difficult values: zeros of both signs, ties, halves, large numbers."""

Growing = Mapping[int, Layout]
"""For each axis that grows, its layout: the positions of old and new units."""

HARD = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.5, -2.5, 100.0, -100.0)


def anything(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw numbers of both signs, many of them equal."""
    plain = torch.randint(1, 65, shape, generator=random) / 16.0
    plain = plain * (torch.randint(0, 2, shape, generator=random) * 2 - 1)
    return _mixed(plain.double(), HARD, random) if hard else plain.double()


def positive(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw numbers greater than zero."""
    plain = torch.randint(1, 65, shape, generator=random) / 16.0
    return _mixed(plain.double(), (0.5, 1.0, 2.0, 100.0), random) if hard else plain.double()


def unit(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw numbers between -1 and 1."""
    plain = torch.randint(1, 16, shape, generator=random) / 16.0
    plain = plain * (torch.randint(0, 2, shape, generator=random) * 2 - 1)
    return _mixed(plain.double(), (0.0, -0.0, 0.5, -0.5), random) if hard else plain.double()


def above_one(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw numbers above one."""
    return positive(shape, random, hard) + 1


def below_one(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw numbers between 0 and 1."""
    return unit(shape, random, False).abs()


def flags(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
    """Draw a boolean tensor."""
    return torch.rand(shape, generator=random) > 0.5


def below(bound: int) -> Draw:
    """Return a function that draws integers from 0 to `bound` - 1."""

    def draw(shape: tuple[int, ...], random: torch.Generator, hard: bool) -> Tensor:
        return torch.randint(0, bound, shape, generator=random)

    return draw


def _mixed(plain: Tensor, some: Sequence[float], random: torch.Generator) -> Tensor:
    chosen = torch.tensor(some, dtype=torch.float64)[torch.randint(len(some), plain.shape, generator=random)]
    return torch.where(torch.rand(plain.shape, generator=random) < 0.4, chosen, plain)


def grow(old: Tensor, growing: Growing, draw: Draw, random: torch.Generator, hard: bool) -> Tensor:
    """Return a tensor with unchanged old entries and drawn new ones, which are then put into the states of the layouts.

    For a split, old entries are divided, because they share their value with their copies.
    """
    shape = [size(growing[k], new=True) if k in growing else n for k, n in enumerate(old.shape)]
    out = draw(tuple(shape), random, hard).to(old.dtype)
    out[_mesh(old, growing)] = old
    for axis, layout in growing.items():
        for number, leaf in enumerate(leaves(layout)):
            _obey(out, axis, layout, number, State(leaf.state))
    return out


def _obey(out: Tensor, axis: int, layout: Layout, number: int, state: State) -> None:
    left, right, lone, fresh = _places(layout, number)
    match state:
        case State.ZERO:
            out.index_fill_(axis, fresh, 0)
        case State.EVEN | State.ODD:
            sign = -1 if state is State.ODD else 1
            twins = out.index_select(axis, left)
            out.index_copy_(axis, right, twins if sign > 0 else -twins)
            if sign < 0:
                out.index_fill_(axis, lone, 0)
        case State.COPY | State.SPLIT:
            if state is State.SPLIT:
                _divide(out, axis, _counts(layout, number))
            new, source = _copies(layout, number)
            out.index_copy_(axis, new, out.index_select(axis, source))
        case State.MEAN:
            units_of, fresh_of = _rows(layout, number)
            mean = torch.stack([out.index_select(axis, row) for row in units_of]).mean(0)
            for row in fresh_of:
                out.index_copy_(axis, row, mean)
        case State.FREE:
            pass
        case _:
            raise ValueError(f"an operand cannot have the state {state.value}")


def _divide(tensor: Tensor, axis: int, shares: Tensor) -> None:
    tensor.div_(shares.view([-1 if k == axis else 1 for k in range(tensor.dim())]))


def shared(old: Tensor, growing: Growing, said: Mapping[int, Sequence[State]]) -> Tensor:
    """Return the expected old entries of a result: entries that are split share their value with their copies."""
    out = old.clone()
    for axis, row in said.items():
        for number, state in enumerate(row):
            if state is State.SPLIT:
                _divide(out, axis, _counts(growing[axis], number)[_old_places(growing[axis])])
    return out


def old_part(grown: Tensor, growing: Growing) -> Tensor:
    """Return the old entries."""
    return grown[_mesh(grown, growing)]


def new_part(grown: Tensor, growing: Growing) -> Tensor:
    """Return all new entries as a vector."""
    fresh = torch.ones(grown.shape, dtype=torch.bool)
    fresh[_mesh(grown, growing)] = False
    return grown[fresh]


def block(tensor: Tensor, axis: int, layout: Layout, number: int) -> Tensor:
    """Return the new units of one growing set."""
    return tensor.index_select(axis, _places(layout, number)[3])


SIGNS = frozenset({State.ZERO, State.EVEN, State.ODD})


def states_of(tensor: Tensor, axis: int, layout: Layout, number: int, among: Collection[State] = SIGNS) -> set[State]:
    """Return the states, out of `among`, that hold for the new units of one growing set; several or none may hold."""
    return {state for state in among if holds(tensor, axis, layout, number, state)}


def holds(tensor: Tensor, axis: int, layout: Layout, number: int, state: State, rounding: float = ROUNDING) -> bool:
    """Whether the new units of one growing set are in a state. For SPLIT this only checks the new units; `shared`
    computes the expected old ones."""

    def at(places: Tensor) -> Tensor:
        return tensor.index_select(axis, places)

    def same(a: Tensor, b: Tensor) -> bool:
        return equal(a, b, rounding)

    left, right, lone, fresh = _places(layout, number)
    match state:
        case State.FREE:
            return True
        case State.ZERO:
            return same(at(fresh), torch.zeros(()).to(tensor))
        case State.EVEN:
            return same(at(left), at(right))
        case State.ODD:
            return same(at(left), -at(right)) and same(at(lone), -at(lone))
        case State.COPY | State.SPLIT:
            new, source = _copies(layout, number)
            return same(at(new), at(source))
    old, new_rows = _rows(layout, number)
    units_of = [at(row) for row in (*old, *new_rows)]
    match state:
        case State.MEAN:
            mean = torch.stack(units_of[: len(old)]).mean(0)
            return all(same(unit, mean) for unit in units_of[len(old) :])
        case State.SAME:
            return all(same(unit, units_of[0]) for unit in units_of)
        case State.NULL:
            return all(same(unit, torch.zeros(()).to(tensor)) for unit in units_of)
    return False


def equal(a: Tensor, b: Tensor, rounding: float = ROUNDING) -> bool:
    """Whether two tensors are equal up to rounding; infinities and NaNs must be in the same positions."""
    return torch.allclose(a, b.expand_as(a), rtol=rounding, atol=rounding, equal_nan=True)


def numbers(tensor: Tensor) -> Tensor:
    """Convert any tensor to float64; complex numbers become the sum of their parts."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj()).sum(-1)
    return tensor.detach().double()


def _mesh(tensor: Tensor, growing: Growing) -> tuple[Tensor, ...]:
    rows = [_old_places(growing[k]) if k in growing else torch.arange(n) for k, n in enumerate(tensor.shape)]
    return torch.meshgrid(*rows, indexing="ij") if rows else ()


@lru_cache(maxsize=4096)
def _old_places(layout: Layout) -> Tensor:
    return torch.tensor(old_positions(layout), dtype=torch.int64)


@lru_cache(maxsize=4096)
def _places(layout: Layout, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the positions of left halves, right halves, units without a twin, and all of these in order."""
    left, right, lone = partners(layout, number)
    rows = (left, right, lone, sorted(left + right + lone))
    a, b, c, d = (torch.tensor(places, dtype=torch.int64) for places in rows)
    return a, b, c, d


@lru_cache(maxsize=4096)
def _rows(layout: Layout, number: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the positions of each old unit and of each new one."""
    rows = [torch.tensor(places, dtype=torch.int64) for places in units(layout, number)]
    old = list(leaves(layout))[number].old
    return rows[:old], rows[old:]


@lru_cache(maxsize=4096)
def _copies(layout: Layout, number: int) -> tuple[Tensor, Tensor]:
    """Return the positions of new units, and of the units that they copy."""
    old, new = _rows(layout, number)
    source = list(leaves(layout))[number].source
    if len(source) != len(new):
        raise ValueError("the layout does not list one original for each new unit")
    return torch.cat(new), torch.cat([old[unit] for unit in source])


@lru_cache(maxsize=4096)
def _counts(layout: Layout, number: int) -> Tensor:
    """Return, for each position, the number of units that share the old unit there; 1 for new units and all others."""
    leaf = list(leaves(layout))[number]
    rows = [1 + leaf.source.count(u) if 0 <= u < leaf.old else 1 for u in coordinates(layout, number)]
    return torch.tensor(rows, dtype=torch.float64)
