"""Mean fill: new units of a stream are the mean of its old ones, which a layer_norm turns into zeros."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Mean:
    """Each writer's new rows are the mean of its old rows. The mean of the stream stays, its variance shrinks by D/D'.

    Scale and epsilon make up for that (gamma' = gamma sqrt(D/D'), epsilon' = epsilon D/D'), the new shift is zero, and
    what leaves the norm is zero at the new units, so its readers are free. Needs an affine layer_norm over exactly
    the growing units, and writers that are sums of linear maps; where there is no norm it fills readers with zeros.
    """

    name: str = "mean"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Means where a mean is taken off, zeros before an rms_norm."""
        means = dict.fromkeys(("layer_norm", "centre", "variance"), State.MEAN)
        norms = {**means, **dict.fromkeys(ZEROED, State.ZERO)}
        return choose_sides(problem.dims, problem.sizes, norms, lambda _, __: False)
