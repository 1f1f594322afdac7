"""What verification runs: probes that a model cannot take, and random streams that it leaves as they were."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.verification.compare import seeded

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class BatchStatistics(nn.Module):
    """A batch norm that takes the statistics of the batch in either mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(F.batch_norm(self.a(x), None, None, training=True))
        return y


class Picky(nn.Module):
    """Takes pairs only, in its own words."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.a = nn.Linear(3, size)
        self.b = nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] % 2:
            raise ValueError("pairs only")
        y: Tensor = self.b(self.a(x))
        return y


def test_a_batch_of_one_is_left_out_where_the_model_cannot_take_it() -> None:
    gm = fxgrow.trace(BatchStatistics(), (X,))
    certificate = fxgrow.verify(gm, fxgrow.widen(gm, "a"))
    assert certificate.held
    assert {e.probe for e in certificate.errors} == {"normal", "large", "sparse, mixed signs", "constant"}
    assert "batch of one not compared: the model cannot run on these inputs: Expected more than 1 value" in str(
        certificate
    )


def test_a_batch_of_one_is_compared_where_it_can_be() -> None:
    gm = fxgrow.trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (X,))
    certificate = fxgrow.verify(gm, fxgrow.widen(gm, "0"))
    assert "batch of one" in {e.probe for e in certificate.errors}
    assert certificate.notes == ()


def test_inputs_that_a_model_cannot_take_at_all_are_a_usage_error() -> None:
    with pytest.raises(fxgrow.UsageError, match="FXG005  a model cannot run on these inputs: pairs only"):
        fxgrow.verify(Picky(), Picky(), example_inputs=(X,))
    one = fxgrow.trace(BatchStatistics(), (X[:1],))
    with pytest.raises(fxgrow.UsageError, match="FXG005  a model cannot run on these inputs: Expected more than 1"):
        fxgrow.verify(one, one, example_inputs=(X[:1],))


def test_a_batch_of_one_that_only_the_grown_model_cannot_take_is_no_note() -> None:
    before, after = nn.Sequential(nn.Linear(3, 5)), Picky()
    with pytest.raises(fxgrow.UsageError, match="pairs only"):
        fxgrow.verify(before, after, example_inputs=(X[:4],))


def test_random_streams_are_put_back_exactly() -> None:
    torch.manual_seed(3)
    torch.randn(1)  # half of a pair of normal numbers is kept for the next call
    before = torch.get_rng_state()
    queued = len(torch.cuda._queued_calls)

    def fail() -> None:
        with seeded(0):
            torch.rand(5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert len(torch.cuda._queued_calls) == queued


def test_seeded_draws_are_those_of_the_seed() -> None:
    draws = []
    for seed in (1, 2, 1):
        with seeded(seed):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.gpu
def test_random_streams_of_the_gpu_are_put_back_exactly() -> None:
    torch.cuda.manual_seed(3)
    torch.rand(1, device="cuda")
    before = torch.cuda.get_rng_state()
    with seeded(0):
        first = torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    with seeded(0):
        assert torch.equal(torch.rand(3, device="cuda"), first)
