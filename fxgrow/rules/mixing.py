"""The description of a normalisation or a statistic over a growing axis, from which its new states follow."""

from __future__ import annotations

from dataclasses import dataclass

from ..capture.program.program import Value
from ..dims.axis import Atom


@dataclass(frozen=True, slots=True)
class Mixing:
    """A normalisation or a statistic (mean, variance, norm, maximum) over axes that grow, and how much they grow."""

    kind: str
    """Name of the operator, or of its family: "mean", "variance", "norm", "extremum", "cosine"."""
    old: int
    """Number of units over which it is taken, before the growth."""
    new: int
    """The same after the growth."""
    alone: bool
    """Whether there is one axis, which consists of a single growing atom."""
    even: bool
    """Whether the new axis is a whole number of copies of the old one if every unit is copied equally often."""
    atoms: tuple[Atom, ...]
    """The growing atoms of the axes."""
    scale: Value | None = None
    """The parameter that scales each unit of the result."""
    epsilon: float | None = None
    correction: float = 0
    """For a variance: the number that is subtracted from the count by which it is divided."""
    order: float = 2
    """For a norm: its order p; infinity for the maximum norm."""

    gain: Value | None = None
    """A parameter of which the result is a multiple, with one value along these axes and no other use."""
    paired: int = 0
    """The number of units of all growing atoms together, before the growth."""

    @property
    def degenerate(self) -> bool:
        """Whether statistics would be taken over a single pair of equal units, which have no deviation.

        A group norm takes its statistics over space as well, and a batch norm over the batch.
        """
        return self.kind != "batch_norm" and (self.old if self.kind == "group_norm" else self.paired) <= TWINS


TWINS = 2
"""Number of equal units of which a normalisation leaves only rounding errors, divided by √ε."""
PINNED = "pinned"
"""Name of a number that a proof requires, beside arguments of operators: the factor of a mean or a norm, or the
correction of a variance, with which it keeps its value after the growth."""
NORMS = frozenset({"norm", "linalg_vector_norm", "linalg_norm", "cdist"})
"""Operators that compute a norm."""
MULTIPLIED = NORMS | {"mean"}
"""Statistics that keep their value if their result is multiplied by a number."""
