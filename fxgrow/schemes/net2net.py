"""Net2Net: new units are copies of old ones (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641; paper, equation 6)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, check_noise
from .parity import choose_parities


@dataclass(frozen=True, slots=True)
class Net2Net:
    """Writers are copied, readers divided by how many copies there are now: W'_u = W_g(u), V'_u = V_g(u) / |fibre|.

    g is random on the new units, and uniform where a normalisation over the axis needs every unit equally often.
    Copies receive equal gradients until something tells them apart: `noise`, dropout, or their unequal optimizer
    state.

    Args:
        noise: standard deviation of what is added to new entries, as a share of that of the old ones. The function is
            then preserved up to the noise only, and the certificate says by how much it changed.
    """

    noise: float = 0.0
    name: str = "net2net"

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Copies and shares obey the equations of signs."""
        return choose_parities(problem.dims, problem.sizes, copies=True)
