"""Occurrences of growing atoms in the axes of parameters, and other axes along which their states may differ."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from math import prod

from ..analysis.solver import DimsSolver
from ..capture.program.program import Value
from ..dims.axis import ONE, Atom, Axis, Product, Sum, atoms, factors_of, terms_of
from ..errors import Kind
from .states import Place

MOST_INDICES = 16
"""Largest number of states of one occurrence that differ by index. With more, there is one state for all indices."""


def places_of(dims: DimsSolver, sizes: Container[Atom], value: Value, k: int, axis: Axis) -> Iterator[Place]:
    """Yield the places of a parameter's axis, for each of which a scheme chooses a state."""
    for i, index in enumerate(indices_of(dims, sizes, axis)):
        if not index:
            yield Place(value.index, k, i)
        else:
            yield from (Place(value.index, k, i, n) for n in range(prod(len(cells(dims, x)) for x in index)))


def indices_of(
    dims: DimsSolver, sizes: Container[Atom], axis: Axis, outer: tuple[Axis, ...] = ()
) -> list[tuple[Axis, ...]]:
    """Return for each occurrence of a growing atom in an axis the other factors along which its state may differ."""
    axis = dims.algebra.resolve(axis)
    match axis:
        case Atom():
            return [outer] if axis in sizes else []
        case Sum(terms):
            return [index for term in terms for index in indices_of(dims, sizes, term, outer)]
        case Product(factors):
            told = [i for i in _index_factors(dims, factors) if factors[i] not in outer]
            rows = ((f, tuple(factors[i] for i in told if i != k)) for k, f in enumerate(factors))
            return [index for f, others in rows for index in indices_of(dims, sizes, f, (*outer, *others))]
    return []


def cells(dims: DimsSolver, axis: Axis) -> list[Axis]:
    """Return the parts of an axis for each of which states may differ: the terms of a sum, and units that are selected
    by index (queries, keys and values in one tensor)."""
    axis = dims.algebra.resolve(axis)
    if isinstance(axis, Sum):
        return [cell for term in axis.terms for cell in cells(dims, term)]
    if isinstance(axis, Atom) and dims.algebra.size[axis.index] <= MOST_INDICES:
        reason = dims.algebra.frozen.get(axis.index)
        if reason is not None and reason.kind is Kind.INDEX:
            return [ONE] * dims.algebra.size[axis.index]
    return [axis]


def _index_factors(dims: DimsSolver, factors: Sequence[Axis]) -> list[int]:
    """Return the factors of a product along which states of the others may differ, preferring those with few parts."""
    counts = {k: len(cells(dims, f)) for k, f in enumerate(factors) if isinstance(f, Atom | Sum)}
    taken: list[int] = []
    for k in sorted((k for k, count in counts.items() if count > 1), key=counts.__getitem__):
        if factors.count(factors[k]) == 1 and prod(counts[i] for i in (*taken, k)) <= MOST_INDICES:
            taken.append(k)
    return sorted(taken)


def crowded(dims: DimsSolver, sizes: Container[Atom]) -> bool:
    """Return whether a parameter has more parts beside growing units than `MOST_INDICES`."""

    def products(axis: Axis) -> Iterator[Sequence[Axis]]:
        match dims.algebra.resolve(axis):
            case Sum(terms):
                yield from (factors for term in terms for factors in products(term))
            case Product(factors):
                yield factors

    def parts(axis: Axis) -> int:
        if isinstance(axis, Sum):
            return sum(map(parts, axis.terms))
        reason = dims.algebra.frozen.get(axis.index) if isinstance(axis, Atom) else None
        return dims.algebra.measure(axis) if reason is not None and reason.kind is Kind.INDEX else 1

    axes = [axis for value in dims.program.parameters.values() for axis in dims.of(value)]
    rows = [factors for axis in axes for factors in products(axis)]
    grown = [row for row in rows if any(atom in sizes for factor in row for atom in atoms(factor))]
    return any(prod(map(parts, row)) > MOST_INDICES for row in grown)


def times(axes: Sequence[Axis], part: Axis) -> int:
    """Return how often an expression occurs in the axes of a value; of a sum only one term counts, that with most."""

    def within(axis: Axis) -> int:
        if axis == part:
            return 1
        if isinstance(axis, Product):
            return sum(map(within, axis.factors))
        return max(map(within, axis.terms)) if isinstance(axis, Sum) else 0

    return sum(map(within, axes))


def opened_in(axes: Sequence[Axis], index: Axis) -> Axis | None:
    """Return the axis, if there is exactly one, in which a sum is multiplied out, or from which its terms were taken:
    (a + b) in a c + b c, or vice versa."""
    if not isinstance(index, Sum):
        return None
    found = [axis for axis in axes if isinstance(axis, Sum) and _begins(index, axis)]
    return found[0] if len(found) == 1 else None


def _begins(a: Sum, b: Sum) -> bool:
    def alike(pair: tuple[Axis, Axis]) -> bool:
        x, y = map(factors_of, pair)
        n = min(len(x), len(y))
        return x[:n] == y[:n]

    return len(a.terms) == len(b.terms) and all(map(alike, zip(a.terms, b.terms, strict=True)))


def leading(axes: Sequence[Axis]) -> int | None:
    """Return the index of the axis that is a sum which is multiplied out if the axes are merged, or None."""
    first = next((k for k, axis in enumerate(axes) if axis != ONE), None)
    return first if first is not None and len(terms_of(axes[first])) > 1 else None
