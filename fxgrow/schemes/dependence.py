"""What new units depend on: the parameters by which they could be made zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..proof.states import Place


@dataclass(frozen=True, slots=True)
class Dependence:
    """What the new units of a value depend on. `direct`: it is a parameter itself; `linear`: zeros get through, with
    their gradients; `idle`: it is zero because its weight reads zeros elsewhere, and need not be."""

    places: frozenset[Place] = frozenset()
    direct: bool = False
    linear: bool = True
    idle: bool = False


Mark = Dependence | None
"""None is zero."""
IDLE = Dependence(idle=True)


def live(states: Sequence[Mark]) -> list[Dependence]:
    """Those that are not zero."""
    return [x for x in states if x is not None and not x.idle]


def zero_of(states: Sequence[Mark]) -> Mark:
    """The zero that follows from zeros: idle if they all are."""
    return IDLE if IDLE in states and None not in states else None


def union(some: Sequence[Dependence], *, linear: bool = True) -> Dependence:
    """What depends on all of them."""
    places = frozenset[Place]().union(*(x.places for x in some))
    return Dependence(places, linear=linear and all(x.linear for x in some))
