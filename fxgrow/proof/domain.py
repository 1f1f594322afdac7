"""The interface of a domain: the values with which `Propagation` computes when it runs the rules of operators.

`ProofDomain` computes with states, to prove a growth; the schemes compute with unknowns, to choose states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from ..capture.program.program import Op
from ..rules.domains import Domain as Interval
from ..rules.mixing import Mixing
from .states import Failure, Place

S = TypeVar("S")


class Domain(Protocol[S]):
    """The values of an abstract interpretation, and the operations on them; see `fxgrow.rules.StateContext`."""

    same: S
    """The value of operands that are the same for all units, old and new."""
    zero: S
    """The value of operands that are zero at new units."""
    null: S
    """The value of operands that are zero at all units, old and new."""
    failure: Failure | None
    """Why the growth is not possible, as soon as that is known; propagation then stops."""

    def place(self, place: Place) -> S:
        """Return the value of a parameter or buffer at one occurrence."""

    def add(self, op: Op, states: Sequence[S]) -> S:
        """Return the value of a sum."""

    def mul(self, op: Op, states: Sequence[S]) -> S:
        """Return the value of a product."""

    def map_units(self, op: Op, states: Sequence[S], odd: bool, zero: bool, linear: bool, homogeneous: bool) -> S:
        """Return the value of a function that is applied to every unit separately."""

    def require(self, op: Op, state: S, even: bool, why: str) -> S:
        """Require that new units are not zero, and if `even` that paired units are equal; return the value."""

    def within(self, op: Op, state: S, domain: Interval) -> S:
        """Require that new units are in the domain of a function because old ones are; return the value."""

    def adapt(self, op: Op, state: S) -> None:
        """Record that new units of a skip path enter a join through an adapter, which cancels or drops them."""

    def missing(self, op: Op, state: S) -> S:
        """Return the value of the channels that an adapter adds to a skip path, for a main path with this value."""

    def mix(self, op: Op, state: S, mixing: Mixing) -> S:
        """Return the value after a normalisation or a statistic over all units of the axis."""

    def centre(self, op: Op, state: S) -> S:
        """Return the value after the mean over the axis has been subtracted."""

    def contract(self, op: Op, factors: Sequence[S]) -> None:
        """Require that a sum of products over the new units vanishes."""

    def merge(self, op: Op, states: Sequence[S]) -> S:
        """Return one value for several occurrences that cannot be told apart any more."""

    def keep(self, op: Op, before: S, after: S) -> None:
        """Require that a tensor with the value `before` may be left with the value `after` for the next call."""

    def drawn(self, op: Op, state: S, why: str) -> S:
        """Return the value after a product with a random factor for every unit that is drawn in both modes."""

    def only_eval(self, op: Op, why: str) -> None:
        """Record that the function is preserved at this operator in evaluation mode only."""
