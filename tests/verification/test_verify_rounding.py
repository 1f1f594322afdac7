"""Verification where old entries cannot be kept bit for bit: shares, means and scales are rounded to the dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.verification import Certificate
from fxgrow.verification.certificate import FLOAT64_BOUND

from ..models.scheme import NETS


class Stream(nn.Module):
    """Small embeddings under norms that are given no epsilon, as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(11, 8), nn.RMSNorm(8), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        with torch.no_grad():
            self.words.weight.mul_(1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        z: Tensor = self.head(self.norm(y) + nn.functional.rms_norm(y, (8,), self.norm.weight))
        return z


def certified(net: str, scheme: str, dtype: torch.dtype, factor: float) -> tuple[Certificate, fx.GraphModule]:
    """What verification says of a network that is grown, and the grown network."""
    before = fxgrow.trace(NETS[net].made(dtype).eval(), (NETS[net].input(dtype),))
    after = fxgrow.widen(before, NETS[net].node, factor=factor, scheme=scheme)
    return fxgrow.verify(before, after), after


@pytest.mark.parametrize(
    ("net", "scheme", "factor", "rounds"),
    [
        ("convolutions", "r2r", 2, False),
        ("convolutions", "zero", 2, False),
        ("softmax", "net2net", 2, False),
        ("softmax", "net2net", 3, False),
        ("functional layer norm", "net2net", 2, False),
        ("functional layer norm", "net2net", 3, True),
        ("functional layer norm", "mean", 2, True),
        ("tied, rms norm", "zero", 4, False),
        ("tied, rms norm", "zero", 2, True),
    ],
)
def test_the_bound_widens_only_where_old_entries_are_rounded(
    net: str, scheme: str, factor: float, rounds: bool
) -> None:
    single, after = certified(net, scheme, torch.float32, factor)
    assert single.held, str(single)
    assert any(tensor.rounds for tensor in after.meta["fxgrow"][0].tensors) is rounds
    assert ({e.bound for e in single.errors} == {FLOAT64_BOUND}) is not rounds
    assert ("rounded to the dtype" in str(single)) is rounds
    double, _ = certified(net, scheme, torch.float64, factor)
    assert double.held
    assert double.float64 <= FLOAT64_BOUND


def test_a_small_mistake_is_still_seen_through_the_wider_bound() -> None:
    net = NETS["functional layer norm"]
    before = fxgrow.trace(net.made(torch.float32).eval(), (net.input(torch.float32),))
    after = fxgrow.widen(before, net.node, factor=3, scheme="net2net")
    with torch.no_grad():
        after.get_parameter("reader.weight")[0, 0] *= 1.0001
    assert not fxgrow.verify(before, after).held


def test_an_epsilon_of_the_dtype_is_written_out_and_meant_in_every_comparison() -> None:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        before = fxgrow.trace(Stream().eval(), (torch.arange(10).view(2, 5),))
    after = fxgrow.widen(before, "words", scheme="zero")
    norm = after.get_submodule("norm")
    assert isinstance(norm, nn.RMSNorm)
    assert norm.eps == torch.finfo(torch.float32).eps / 2
    assert "eps = 5.96" in after.code
    certificate = fxgrow.verify(before, after)
    assert certificate.held, str(certificate)
    norm.eps = None
    assert not fxgrow.verify(before, after).held
