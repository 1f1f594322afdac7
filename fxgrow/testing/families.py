"""Families of states: which ways to fill new blocks the laws try, and how much is added."""

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
"""How many units the first, second … growth of a case adds: two pairs, a pair and a unit without twin, and so on."""
TIMES = (2, 3)
"""How often a growth by copies takes the first, second … set of units, so that they can be copied equally often."""


@dataclass(frozen=True, slots=True)
class Family:
    """States that are tried together.

    Args:
        states: what a block may hold.
        most: assignments that are tried for one growth; where there are more, so many are picked at random.
        enough: assignments that are accepted and looked at for one growth.
        adds: a fixed number of units, or copies: a multiple of what is there for one set of units, any for several.
        needs: only assignments in which this state occurs are of interest; others are tried elsewhere.
    """

    states: tuple[State, ...]
    most: int
    enough: int
    adds: Literal["units", "copies"] = "units"
    needs: State | None = None

    def sizes(self, growth: Sequence[Atom], size: Mapping[int, int] | Sequence[int], number: int) -> dict[Atom, int]:
        """New sizes of the atoms of the growth with this number."""
        if self.adds == "copies":
            return {atom: size[atom.index] * TIMES[(number + k) % 2] for k, atom in enumerate(growth)}
        return {atom: size[atom.index] + NEW_UNITS[number % 4] for atom in growth}

    def rows(self, places: int, choice: Random) -> Iterator[tuple[State, ...]]:
        """A state for each place: all possibilities, or some; those with one state for all come first."""
        few = len(self.states) ** places <= self.most
        rows: Iterable[tuple[State, ...]] = product(self.states, repeat=places) if few else self._some(places, choice)
        return (row for row in rows if self.needs is None or self.needs in row)

    def _some(self, places: int, choice: Random) -> Iterator[tuple[State, ...]]:
        yield (self.states[0],) * places
        for _ in range(self.most - 1):
            yield tuple(choice.choices(self.states, k=places))

    def watched(self, assignment: Assignment) -> frozenset[State]:
        """States that a refusal must make impossible, and that must be claimed where they are true.

        Signs say all that is true of them. Copies do if everything is copied; a function of a share may well be a
        share by its own nature, and of what is free nothing can be said.
        """
        kinds = set(assignment.values())
        if self is SIGN:
            return SIGNS
        return frozenset({State.COPY}) if kinds == {State.COPY} else frozenset()


SIGN = Family((State.EVEN, State.ODD, State.ZERO), most=32, enough=32)
COPIES = Family((State.COPY, State.SPLIT, State.ZERO, State.FREE), most=64, enough=12, adds="copies")
SIDES = Family((State.MEAN, State.ZERO, State.FREE), most=32, enough=6, needs=State.MEAN)
ALL = Family((State.FREE, State.EVEN, State.ODD, State.ZERO, State.COPY, State.SPLIT, State.MEAN), most=24, enough=4)
"""States that no scheme brings together: what is claimed of them must be true all the same."""
FAMILIES = (SIGN, COPIES, SIDES, ALL)
