"""States that differ along another axis of the same value, as those of queries, keys and values in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..analysis.solver import DimsSolver
from ..dims.axis import Axis, terms_of
from .occurrences import cells, leading, opened_in, times


@dataclass(frozen=True, slots=True)
class ByIndex:
    """One state for each part (see `cells`) of another axis of the same value; these may again differ by index."""

    axis: Axis
    states: tuple[Any, ...]


Merge = Callable[[list[Any]], Any]
"""A function that returns one state for several that cannot be told apart any more."""


def one(state: Any, merge: Merge) -> Any:
    """Merge the states of all indices into one."""
    return merge([one(x, merge) for x in state.states]) if isinstance(state, ByIndex) else state


def forget_index(state: Any, axes: Sequence[Axis], merge: Merge) -> Any:
    """Merge the states of all indices along some axes into one."""
    if not isinstance(state, ByIndex):
        return state
    states = [forget_index(x, axes, merge) for x in state.states]
    if times(axes, state.axis) or opened_in(axes, state.axis) is not None:
        return each(states, merge)
    return ByIndex(state.axis, tuple(states))


def at(state: Any, axis: Axis, number: int) -> Any:
    """Return the state at one part of an index axis."""
    if not isinstance(state, ByIndex):
        return state
    if state.axis == axis:
        return state.states[number]
    return ByIndex(state.axis, tuple(at(x, axis, number) for x in state.states))


def nested(dims: DimsSolver, index: Sequence[Axis], row: Sequence[Any]) -> Any:
    """Combine a row of states, one for each combination of indices, into one state that differs by index."""
    if not index:
        return row[0]
    inner = len(row) // len(cells(dims, index[0]))
    parts = (row[k : k + inner] for k in range(0, len(row), inner))
    return ByIndex(index[0], tuple(nested(dims, index[1:], part) for part in parts))


def each(states: Sequence[Any], work: Callable[[list[Any]], Any]) -> Any:
    """Apply a function to states, for each index separately if they differ by index."""
    first = next((x for x in states if isinstance(x, ByIndex)), None)
    if first is None:
        return work(list(states))
    count = range(len(first.states))
    return ByIndex(first.axis, tuple(each([at(x, first.axis, n) for x in states], work) for n in count))


def part(dims: DimsSolver, state: Any, axis: Axis, start: int, taken: Axis, merge: Merge) -> Any:
    """Return a state after units from `start` on have been taken from an axis, which become the axis `taken`."""
    if not isinstance(state, ByIndex):
        return state
    if state.axis != axis:
        return ByIndex(state.axis, tuple(part(dims, x, axis, start, taken, merge) for x in state.states))
    measure, begin, some = dims.algebra.measure, 0, []
    for cell, x in zip(cells(dims, axis), state.states, strict=True):
        if begin < start + measure(taken) and start < begin + measure(cell):
            some.append(x)
        begin += measure(cell)
    if len(some) == 1:
        return some[0]
    found = ByIndex(taken, tuple(some))
    return found if len(cells(dims, taken)) == len(some) else one(found, merge)


def merge_axes(
    dims: DimsSolver, axes: Sequence[Axis], rows: Sequence[Sequence[Any]], count: Callable[[Axis], int], merge: Merge
) -> list[Any]:
    """Return the states of the axis into which several are merged: a leading sum is multiplied out, so that the other
    axes occur in each of its terms."""
    first = leading(axes)
    others = [x for k, row in enumerate(rows) if k != first for x in row]
    if first is None or not others:
        return [x for row in rows for x in row]
    own, cell = list(rows[first]), 0
    out: list[Any] = []
    for term in terms_of(axes[first]):
        out, own = out + own[: count(term)], own[count(term) :]
        width = len(cells(dims, term))
        out += [each([at(x, axes[first], cell + n) for n in range(width)], merge) for x in others]
        cell += width
    return out


def split_axes(
    dims: DimsSolver, row: Sequence[Any], axes: Sequence[Axis], count: Callable[[Axis], int]
) -> list[list[Any]] | None:
    """Return the states of the axes into which one is split, if the first of them is a sum that was multiplied out;
    otherwise None."""
    first, counts = leading(axes), list(map(count, axes))
    if first is None:
        return None
    terms, rest = terms_of(axes[first]), sum(counts) - counts[first]
    if not rest or len(row) != counts[first] + rest * len(terms):
        return None
    own: list[Any] = []
    others: list[list[Any]] = [[] for _ in range(rest)]
    for term in terms:
        mine = count(term)
        own += row[:mine]
        for some, x in zip(others, row[mine:], strict=False):
            some += [x] * len(cells(dims, term))
        row = row[mine + rest :]
    states = iter([ByIndex(axes[first], tuple(some)) for some in others])
    return [own if k == first else [next(states) for _ in range(n)] for k, n in enumerate(counts)]
