"""The scheme "r2r": new units in pairs, equal in producers and opposite in consumers (arXiv 2410.11038, equations 8, 9
and 12)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem
from .parity import choose_parities


@dataclass(frozen=True, slots=True)
class R2R:
    """New units of producers are pairs of equal units, and those of consumers pairs of opposite ones, so that the
    contributions of a pair cancel, and every new weight gets a gradient at the first step.

    If the requirements of the graph contradict each other (a weight that is tied in two roles), new entries of a
    consumer are zeros instead.
    """

    name: str = "r2r"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Solve the linear equations of signs."""
        return choose_parities(problem.dims, problem.sizes)
