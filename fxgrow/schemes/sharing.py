"""Several schemes in one growth: the states that each has chosen for its own units, as states of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..dims.axis import Atom, atoms
from ..proof.states import SHARE, Assignment, Place, Problem, State


@dataclass(frozen=True, slots=True)
class Part:
    """Units with the states that were chosen for a growth of these units alone."""

    atoms: Sequence[Atom]
    states: Assignment


def shared(problem: Problem, parts: Sequence[Part]) -> dict[Place, State]:
    """The states of a growth of several sets of units.

    A place counts the growing units of its axis, so that its number is another one where other units grow beside them.
    """
    if len(parts) == 1 and set(parts[0].atoms) == set(problem.sizes):
        return dict(parts[0].states)
    owner = {atom: k for k, part in enumerate(parts) for atom in part.atoms}
    numbers: dict[tuple[int, int, int], list[int]] = {}
    """By part, value and axis: where in the axis the units of the part stand, among all that grow."""
    values = problem.dims.program.values
    found: dict[Place, State] = {}
    for k, part in enumerate(parts):
        for place, state in part.states.items():
            if place.axis == SHARE:  # of the parameter as a whole
                found[place] = state
                continue
            key = (k, place.value, place.axis)
            if key not in numbers:
                axis = problem.dims.resolved(values[place.value])[place.axis]
                growing = [atom for atom in atoms(axis) if atom in owner]
                numbers[key] = [n for n, atom in enumerate(growing) if owner[atom] == k]
            found[replace(place, occurrence=numbers[key][place.occurrence])] = state
    return found
