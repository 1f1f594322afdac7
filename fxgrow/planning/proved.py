"""The data of a proved growth, from which a plan is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..analysis.solver import DimsSolver
from ..dims.axis import Atom
from ..errors import GrowthRefused, Refusal
from ..schemes import Assignment, Proof
from .targets import Target


class Inexpressible(GrowthRefused):
    """Raised when a node of the graph cannot express the new size.

    The chain of the refusal ends with the node; `all` holds the errors of every such node.
    """

    def __init__(self, refusal: Refusal, others: Sequence[GrowthRefused] = ()) -> None:
        super().__init__(refusal)
        self.all: tuple[GrowthRefused, ...] = (self, *others)


@dataclass(frozen=True, slots=True)
class Proved:
    """A growth with its targets, new sizes, states and proof."""

    dims: DimsSolver
    sizes: Mapping[Atom, int]
    targets: Sequence[Target]
    assignment: Assignment
    proof: Proof
    notes: tuple[str, ...]
