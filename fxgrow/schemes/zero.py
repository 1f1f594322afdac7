"""Zero fill: what reads the new units starts at zero, and so do streams that end in an rms_norm."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Zero:
    """Writers are free and readers zero, so that readers learn at the first step and writers from the second on.

    Before an rms_norm the writers are zero instead and the readers free: zeros leave a sum of squares as it is, and
    scale and epsilon make up for the new count (gamma' = gamma sqrt(D/D'), epsilon' = epsilon D/D').
    """

    name: str = "zero"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Zero the reading side."""
        return choose_sides(problem.dims, problem.sizes, dict.fromkeys(ZEROED, State.ZERO), lambda _, __: False)
