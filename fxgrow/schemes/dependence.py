"""The values of `SidedDomain`: the parameters on which new units depend, which could be set to zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..proof.states import Place


@dataclass(frozen=True, slots=True)
class Dependence:
    """The parameters on which the new units of a value depend."""

    places: frozenset[Place] = frozenset()
    direct: bool = False
    """Whether the value is a parameter itself."""
    linear: bool = True
    """Whether the value is zero, and gets a gradient, if the parameters are zero."""
    idle: bool = False
    """Whether it is zero only because its weight was zeroed for another use."""


Mark = Dependence | None
"""A dependence, or None for zero."""
IDLE = Dependence(idle=True)
"""A value that is zero only because its weight was zeroed for another use."""


def live(states: Sequence[Mark]) -> list[Dependence]:
    """Return the values that are not zero."""
    return [x for x in states if x is not None and not x.idle]


def zero_of(states: Sequence[Mark]) -> Mark:
    """Return the zero that results from zeros: idle if all of them are."""
    return IDLE if IDLE in states and None not in states else None


def union(some: Sequence[Dependence], *, linear: bool = True) -> Dependence:
    """Return the dependence on the parameters of all of them."""
    places = frozenset[Place]().union(*(x.places for x in some))
    return Dependence(places, linear=linear and all(x.linear for x in some))
