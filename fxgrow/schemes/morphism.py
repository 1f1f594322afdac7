"""The scheme "morphism": Network Morphism (Wei et al. 2016, arXiv 1603.01670; in the R2R paper, equation 7)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State, check_noise
from .dependence import Dependence
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Morphism:
    """Either the producers or the consumers of new units are zero: those with fewer new entries.

    The others are free, and get a gradient at the first step. Producers can be zero only if all operators between both
    are linear: a relu, for example, has no slope at zero, so that new units would never get a gradient.

    Args:
        noise: standard deviation of the noise that is added to the zeros, relative to that of the old entries. The
            function is then preserved up to the noise only, and the certificate reports by how much it changed.
    """

    noise: float = 0.0
    name: str = "morphism"

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Choose zeros for the producers or the consumers, whichever have fewer new entries."""
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
