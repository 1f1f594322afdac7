"""Defines families of states: which states of new units the laws try, and by how many units a growth grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Literal

from ..dims.axis import Atom
from ..proof.states import Assignment, State
from .blocks import SIGNS

NEW_UNITS = (4, 3, 2, 5)
"""Numbers of units that the growths of a case add, in turn: two pairs, a pair and a unit without a twin, and so on."""
TIMES = (2, 3)
"""Factors of sets of units in growths by copies, in turn, so that all units can be copied equally often."""


@dataclass(frozen=True, slots=True)
class Family:
    """States that are tried together.

    Args:
        states: the states that new units may have.
        most: the number of assignments tried per growth; if there are more, a random sample of this size.
        enough: the number of accepted assignments that are examined per growth.
        adds: "units" adds a fixed number of units, "copies" grows by a factor.
        needs: only assignments that contain this state are tried; other families try the others.
    """

    states: tuple[State, ...]
    most: int
    enough: int
    adds: Literal["units", "copies"] = "units"
    needs: State | None = None

    def sizes(self, growth: Sequence[Atom], size: Mapping[int, int] | Sequence[int], number: int) -> dict[Atom, int]:
        """Return the new sizes of the atoms in the growth with this number."""
        if self.adds == "copies":
            return {atom: size[atom.index] * TIMES[(number + k) % 2] for k, atom in enumerate(growth)}
        return {atom: size[atom.index] + NEW_UNITS[number % 4] for atom in growth}

    def rows(self, places: int, choice: Random) -> Iterator[tuple[State, ...]]:
        """Yield a state for each place: all combinations, or a sample; those with equal states come first."""
        few = len(self.states) ** places <= self.most
        rows: Iterable[tuple[State, ...]] = product(self.states, repeat=places) if few else self._some(places, choice)
        return (row for row in rows if self.needs is None or self.needs in row)

    def _some(self, places: int, choice: Random) -> Iterator[tuple[State, ...]]:
        yield (self.states[0],) * places
        for _ in range(self.most - 1):
            yield tuple(choice.choices(self.states, k=places))

    def watched(self, assignment: Assignment) -> frozenset[State]:
        """Return the states that a refusal must make impossible, and that must be claimed where they hold.

        For signs these are all states. For copies they are known only if everything is copied; a function of a share
        may itself be a share, and nothing is known of free units.
        """
        kinds = set(assignment.values())
        if self is SIGN:
            return SIGNS
        return frozenset({State.COPY}) if kinds == {State.COPY} else frozenset()


SIGN = Family((State.EVEN, State.ODD, State.ZERO), most=32, enough=32)
COPIES = Family((State.COPY, State.SPLIT, State.ZERO, State.FREE), most=64, enough=12, adds="copies")
SIDES = Family((State.MEAN, State.ZERO, State.FREE), most=32, enough=6, needs=State.MEAN)
ALL = Family((State.FREE, State.EVEN, State.ODD, State.ZERO, State.COPY, State.SPLIT, State.MEAN), most=24, enough=4)
"""All states together, which no scheme combines: what the rules claim of them must be true too."""
FAMILIES = (SIGN, COPIES, SIDES, ALL)
