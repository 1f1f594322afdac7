"""The scheme "zero": consumers of new units are zero, or their producers before an rms_norm."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Zero:
    """New entries of consumers are zero, and those of producers free. Consumers get a gradient at the first step, and
    producers from the second step on.

    Before an rms_norm producers are zero instead, and consumers free: zeros do not change the sum of squares, and scale
    and epsilon compensate for the new number of units (gamma' = gamma sqrt(D/D'), epsilon' = epsilon D/D').
    """

    name: str = "zero"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Choose zeros for consumers, and for producers before an rms_norm."""
        return choose_sides(problem.dims, problem.sizes, dict.fromkeys(ZEROED, State.ZERO), lambda _, __: False)
