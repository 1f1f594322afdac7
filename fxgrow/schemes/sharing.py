"""Combines the states that several schemes have chosen for different atoms into states of one growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..dims.axis import Atom, atoms
from ..proof.states import SHARE, Assignment, Place, Problem, State


@dataclass(frozen=True, slots=True)
class Part:
    """Some atoms, with the states that were chosen for a growth of these atoms alone."""

    atoms: Sequence[Atom]
    states: Assignment


def shared(problem: Problem, parts: Sequence[Part]) -> dict[Place, State]:
    """Return the states of a growth of several sets of atoms together.

    A place contains the number of an occurrence among the growing ones of its axis, which changes if further atoms of
    that axis grow.
    """
    if len(parts) == 1 and set(parts[0].atoms) == set(problem.sizes):
        return dict(parts[0].states)
    owner = {atom: k for k, part in enumerate(parts) for atom in part.atoms}
    numbers: dict[tuple[int, int, int], list[int]] = {}
    """By part, value and axis: the numbers of the part's occurrences among all growing ones of the axis."""
    values = problem.dims.program.values
    found: dict[Place, State] = {}
    for k, part in enumerate(parts):
        for place, state in part.states.items():
            if place.axis == SHARE:  # a place for the parameter as a whole
                found[place] = state
                continue
            key = (k, place.value, place.axis)
            if key not in numbers:
                axis = problem.dims.resolved(values[place.value])[place.axis]
                growing = [atom for atom in atoms(axis) if atom in owner]
                numbers[key] = [n for n, atom in enumerate(growing) if owner[atom] == k]
            found[replace(place, occurrence=numbers[key][place.occurrence])] = state
    return found
