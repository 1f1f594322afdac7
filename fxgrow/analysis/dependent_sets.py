"""Partition of growing atoms into sets that depend on each other, because they share an axis or are tied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..dims.axis import Atom
from .solver import DimsSolver


def connected(dims: DimsSolver, growing: Iterable[Atom]) -> list[list[Atom]]:
    """Return the sets of growing atoms whose states may depend on each other: no axis has atoms of two sets."""
    return _joined(growing, dims.bundles)


def classes(dims: DimsSolver, growing: Iterable[Atom]) -> list[list[Atom]]:
    """Return the sets of growing atoms that can only grow together, because they are tied."""
    some = list(growing)
    return _joined(some, [dims.algebra.in_step(atom) for atom in some] if dims.algebra.ties else [])


def _joined(growing: Iterable[Atom], bonds: Iterable[Sequence[Atom]]) -> list[list[Atom]]:
    """Return the connected components of atoms, where each bond connects its members; sorted by atom."""
    some = sorted(set(growing), key=lambda atom: atom.index)
    parent = {atom: atom for atom in some}

    def root(atom: Atom) -> Atom:
        while parent[atom] is not atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    for bond in bonds:
        held = [root(atom) for atom in bond if atom in parent]
        for other in held[1:]:
            a, b = root(held[0]), root(other)
            if a is not b:
                first, second = sorted((a, b), key=lambda atom: atom.index)
                parent[second] = first
    found: dict[Atom, list[Atom]] = {}
    for atom in some:
        found.setdefault(root(atom), []).append(atom)
    return list(found.values())
