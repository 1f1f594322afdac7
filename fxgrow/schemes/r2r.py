"""R2R: equal halves going in, opposite halves coming out (arXiv 2410.11038, equations 8, 9 and 12)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem
from .parity import choose_parities


@dataclass(frozen=True, slots=True)
class R2R:
    """Writers get two equal halves, readers two opposite ones, so that every new weight has a gradient at once.

    Where the demands of the graph contradict each other (a weight tied in two roles) a reader gets zeros instead.
    """

    name: str = "r2r"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Solve for the signs."""
        return choose_parities(problem.dims, problem.sizes)
