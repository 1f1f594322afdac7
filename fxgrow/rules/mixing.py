"""What a normalisation or a statistic over a growing axis says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..capture.program.program import Value
from ..dims.axis import Atom


@dataclass(frozen=True, slots=True)
class Mixing:
    """A normalisation or a statistic over axes that grow: how much, and in which way."""

    kind: str
    """The operator, or the family of it."""
    old: int
    new: int
    """Units that it is taken over, before and after."""
    alone: bool
    """The axis is one set of units and nothing else."""
    even: bool
    """If every unit is copied equally often, the axis is a whole number of copies of itself."""
    atoms: tuple[Atom, ...]
    scale: Value | None = None
    """The parameter that scales the result unit by unit."""
    epsilon: float | None = None
    correction: float = 0
    """What a variance takes off the count that it divides by."""
    order: float = 2
    """Of a norm: the power whose sum it is the root of; infinite for the largest modulus."""

    gain: Value | None = None
    """A parameter that the result is a multiple of, the same along these axes, and that serves nothing else."""
    paired: int = 0
    """How many units the atoms have together that grow."""

    @property
    def degenerate(self) -> bool:
        """Whether two equal units, and perhaps copies of them, are all that it is taken over: they have no deviation.

        A group norm is taken over space, too, where they have one, and a batch norm over the batch.
        """
        return self.kind != "batch_norm" and (self.old if self.kind == "group_norm" else self.paired) <= TWINS


TWINS = 2
"""Of two equal values a norm leaves nothing but rounding, divided by √ε."""
PINNED = "pinned"
"""An argument that no operator has: of a mean or a norm what its result is multiplied by, of a variance its correction,
so that it divides by what it divided by before."""
NORMS = frozenset({"norm", "linalg_vector_norm", "linalg_norm", "cdist"})
"""Operators that take a norm."""
MULTIPLIED = NORMS | {"mean"}
"""Statistics whose result can be multiplied by a number."""
