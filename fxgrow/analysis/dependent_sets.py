"""Growing units in sets that depend on each other: those that some axis holds together, or that grow in step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..dims.axis import Atom
from .solver import DimsSolver


def connected(dims: DimsSolver, growing: Iterable[Atom]) -> list[list[Atom]]:
    """Sets of growing units whose states may depend on each other: no axis holds units of two of them."""
    return _joined(growing, dims.bundles)


def classes(dims: DimsSolver, growing: Iterable[Atom]) -> list[list[Atom]]:
    """Sets of growing units that cannot grow one without the other: those that grow in step."""
    some = list(growing)
    return _joined(some, [dims.algebra.in_step(atom) for atom in some] if dims.algebra.ties else [])


def _joined(growing: Iterable[Atom], bonds: Iterable[Sequence[Atom]]) -> list[list[Atom]]:
    """Atoms in sets, each bond joining those that it holds; sets and their members in the order of atoms."""
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
