"""Sizes that `forward` gives to functions of torch's follow the input: that torch tests whether they are whole numbers
decides nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

PASSED: dict[str, Callable[[Tensor], Tensor]] = {
    "pooling over all": lambda h: F.avg_pool1d(h, h.size(2)),
    "pooling over all, in a tuple": lambda h: F.avg_pool1d(h, (h.size(2),)),
    "pooling to half": lambda h: F.adaptive_avg_pool1d(h, h.size(2) // 2),
    "reshape": lambda h: torch.reshape(h, (h.size(0), 8, h.size(2))),
    "roll": lambda h: torch.roll(h, h.size(2) // 2, 2),
    "narrow": lambda h: torch.narrow(h, 2, 0, h.shape[2] // 2),
    "topk": lambda h: torch.topk(h, h.size(2) // 2, dim=2)[0],
    "transform": lambda h: torch.fft.irfft(torch.fft.rfft(h), n=h.size(2)),
    "diagonal": lambda h: torch.triu(h.transpose(0, 1), diagonal=h.size(2) // 4).transpose(0, 1),
    "twice on one line": lambda h: torch.roll(torch.roll(h, h.size(2) // 2, 2), h.size(2) // 4, 2),
    "in a loop": lambda h: sum((torch.narrow(h, 2, k, h.shape[2] // 2) for k in range(2)), torch.zeros(())),
}
FACTORS = [0.1 * k for k in range(20)]
DECIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "a loop": lambda h: sum((torch.roll(h, k, 2) for k in range(h.size(2))), torch.zeros(())),
    "a list": lambda h: h * FACTORS[h.size(2)],
    "a function, and a list": lambda h: torch.roll(h, h.size(2), 2) * FACTORS[h.size(2)],
}


class Between(nn.Module):
    """Something between two convolutions."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.way = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 2, 1), way

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.way(self.a(x)))
        return y


@pytest.mark.parametrize("way", PASSED)
def test_a_size_that_is_passed_on_follows_the_input(way: str) -> None:
    torch.manual_seed(0)
    model = Between(PASSED[way]).double().eval()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 8, dtype=torch.float64),))
    grown = fxgrow.widen(gm, "a")
    for shape in ((2, 3, 8), (3, 3, 12), (1, 3, 5)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(gm(x), model(x), rtol=0, atol=0)
        torch.testing.assert_close(grown(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", DECIDED)
def test_a_size_by_which_forward_decides_is_guarded(way: str) -> None:
    model = Between(DECIDED[way]).eval()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 8),))
    x = torch.randn(3, 3, 8)
    torch.testing.assert_close(gm(x), model(x), rtol=0, atol=0)
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        gm(torch.randn(2, 3, 7))
