"""A growth that is proved, and is to be written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..analysis.solver import DimsSolver
from ..dims.axis import Atom
from ..errors import GrowthRefused, Refusal
from ..schemes import Assignment, Proof
from .targets import Target


class Inexpressible(GrowthRefused):
    """A node cannot be written with the new size; its refusal's chain ends there. `all`: every such node."""

    def __init__(self, refusal: Refusal, others: Sequence[GrowthRefused] = ()) -> None:
        super().__init__(refusal)
        self.all: tuple[GrowthRefused, ...] = (self, *others)


@dataclass(frozen=True, slots=True)
class Proved:
    """A growth with its states and their proof."""

    dims: DimsSolver
    sizes: Mapping[Atom, int]
    targets: Sequence[Target]
    assignment: Assignment
    proof: Proof
    notes: tuple[str, ...]
