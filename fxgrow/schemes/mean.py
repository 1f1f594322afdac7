"""The scheme "mean": new units are the mean of all old ones, which a layer_norm maps to zeros."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, State
from .zero_side import ZEROED, choose_sides


@dataclass(frozen=True, slots=True)
class Mean:
    """New rows of every producer are the mean of its old rows, so that new units are the mean of the old ones.

    In a residual stream of D units that grows to D', the mean is preserved and the variance shrinks by D/D'. Scale and
    epsilon of a layer_norm compensate for that (gamma' = gamma sqrt(D/D'), epsilon' = epsilon D/D'), the new bias is
    zero, and so are the new units after the norm, so that its consumers may be free. It needs an affine layer_norm over
    exactly the growing units, and producers that are sums of linear maps; without a norm new weights of consumers are
    zeros.
    """

    name: str = "mean"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Choose means before a layer_norm or a subtraction of the mean, and zeros before an rms_norm."""
        means = dict.fromkeys(("layer_norm", "centre", "variance"), State.MEAN)
        norms = {**means, **dict.fromkeys(ZEROED, State.ZERO)}
        return choose_sides(problem.dims, problem.sizes, norms, lambda _, __: False)
