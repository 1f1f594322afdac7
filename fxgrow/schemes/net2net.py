"""The scheme "net2net": copies (Chen, Goodfellow, Shlens 2016, arXiv 1511.05641; in the R2R paper, equation 6)."""

from __future__ import annotations

from dataclasses import dataclass

from ..proof.states import Assignment, Failure, Problem, check_noise
from .parity import choose_parities


@dataclass(frozen=True, slots=True)
class Net2Net:
    """New units are copies of old ones: W'_u = W_g(u), V'_u = V_g(u) / n for producers W and consumers V, where n is
    the number of units that are copies of g(u), including the original.

    g is random for new units, and uniform if a normalisation over the axis needs every unit equally often. Copies get
    equal gradients until they are distinguished by `noise`, dropout, or different optimizer states.

    Args:
        noise: standard deviation of the noise that is added to new entries, relative to that of the old ones. The
            function is then preserved up to the noise only, and the certificate reports by how much it changed.
    """

    noise: float = 0.0
    name: str = "net2net"

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Solve the linear equations of copied and split units, which are those of signs."""
        return choose_parities(problem.dims, problem.sizes, copies=True)
