"""What states are made of, as a walk over the program sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from ..capture.program.program import Op
from ..rules.domains import Domain as Interval
from ..rules.mixing import Mixing
from .states import Failure, Place

S = TypeVar("S")


class Domain(Protocol[S]):
    """What states are made of, and how they combine. One for choosing states, one for proving them."""

    same: S
    zero: S
    null: S
    failure: Failure | None
    """Why the growth must fail, if that has shown: the walk need not go on."""

    def place(self, place: Place) -> S:
        """The state of a parameter at one occurrence."""

    def add(self, op: Op, states: Sequence[S]) -> S:
        """A sum."""

    def mul(self, op: Op, states: Sequence[S]) -> S:
        """A product."""

    def map_units(self, op: Op, states: Sequence[S], odd: bool, zero: bool, linear: bool, homogeneous: bool) -> S:
        """A function applied unit by unit."""

    def require(self, op: Op, state: S, even: bool, why: str) -> S:
        """A state that must be the same for twins, or at least not zero."""

    def within(self, op: Op, state: S, domain: Interval) -> S:
        """A state of units that must be in the domain of a function, which nothing but their old values tells."""

    def adapt(self, op: Op, state: S) -> None:
        """A skip path enters a join at which its new units are cancelled or left out."""

    def missing(self, op: Op, state: S) -> S:
        """What an adapter makes of channels that a skip path lacks, for a volume in this state."""

    def mix(self, op: Op, state: S, mixing: Mixing) -> S:
        """A normalisation over all units of the axis."""

    def centre(self, op: Op, state: S) -> S:
        """The mean over the axis is taken off."""

    def contract(self, op: Op, factors: Sequence[S]) -> None:
        """A sum over the new units that must vanish."""

    def merge(self, op: Op, states: Sequence[S]) -> S:
        """Occurrences that can no longer be told apart."""

    def keep(self, op: Op, before: S, after: S) -> None:
        """A parameter or buffer that was `before` is left as `after`, and found so by the next call."""

    def drawn(self, op: Op, state: S, why: str) -> S:
        """A product with numbers that are drawn at random for every unit, in both modes."""

    def only_eval(self, op: Op, why: str) -> None:
        """A step that holds in evaluation mode only."""
