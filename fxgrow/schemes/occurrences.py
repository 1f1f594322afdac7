"""Where growing units occur: in which axes of which parameters, and with which states told apart."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ..capture.program import Value
from ..dims.axis import Atom, Axis, Product, Sum, atoms
from ..dims.solver import DimsSolver
from ..errors import Kind
from .states import Place

MOST_INDICES = 16
"""A factor that is taken apart into more units than this keeps one state for all of them."""


def places_of(dims: DimsSolver, sizes: Container[Atom], value: Value, k: int, axis: Axis) -> Iterator[Place]:
    """Where a parameter's axis has states of its own."""
    for i, index in enumerate(indices_of(dims, sizes, axis)):
        if index is None:
            yield Place(value.index, k, i)
        else:
            yield from (Place(value.index, k, i, n) for n in range(dims.algebra.size[index.index]))


def indices_of(dims: DimsSolver, sizes: Container[Atom], axis: Axis) -> list[Atom | None]:
    """For each occurrence of a growing atom in an axis the index factor that tells its states apart, if any."""
    axis = dims.algebra.resolve(axis)
    if isinstance(axis, Sum):
        return [index for term in axis.terms for index in indices_of(dims, sizes, term)]
    growing = [atom for atom in atoms(axis) if atom in sizes]
    found = index_factor(dims, axis)
    if found is None:
        return [None] * len(growing)
    left = sum(atom in sizes for atom in found[1])
    return [None] * left + [found[0]] * (len(growing) - left)


def index_factor(dims: DimsSolver, axis: Axis) -> tuple[Atom, list[Atom]] | None:
    """The factor of a product that is later taken apart unit by unit, and the atoms on its left."""
    axis = dims.algebra.resolve(axis)
    if not isinstance(axis, Product):
        return None
    left: list[Atom] = []
    for factor in axis.factors:
        if isinstance(factor, Atom):
            reason = dims.algebra.frozen.get(factor.index)
            if reason is not None and reason.kind is Kind.INDEX and dims.algebra.size[factor.index] <= MOST_INDICES:
                return factor, left
        left.extend(atoms(factor))
    return None
