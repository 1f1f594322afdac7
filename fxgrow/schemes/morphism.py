"""Network Morphism: one side of each new unit is zero (Wei et al. 2016, arXiv 1603.01670; paper, equation 7)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State, check_noise
from .dependence import Dependence
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Morphism:
    """U' * U = 0 because U' or U is zero: the side with fewer entries, so that the larger one learns at once.

    The writers can only be it where everything between the two sides is linear: a rectifier, say, has no slope at
    zero, and the new units would never learn.

    Args:
        noise: standard deviation of what is added to the zeros, as a share of that of the old entries. The function is
            then preserved up to the noise only, and the certificate says by how much it changed.
    """

    noise: float = 0.0
    name: str = "morphism"

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Count the new entries of both sides."""
        values = problem.dims.program.values

        def entries(side: Dependence) -> int:
            shapes = [(values[p.value].shape, p.axis) for p in side.places]
            return sum(_product(shape[:axis] + shape[axis + 1 :]) for shape, axis in shapes)

        norms = dict.fromkeys(ZEROED, State.ZERO)
        return choose_sides(problem.dims, problem.sizes, norms, lambda a, b: entries(a) < entries(b))


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for n in numbers:
        result *= n
    return result
