"""Widths that `forward` puts into tensors: they stay the numbers that they were, as widths in plain arithmetic do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

DOUBLE = torch.float64


class Attention(nn.Module):
    """One head, whose scores are scaled by what some code makes of queries and keys."""

    def __init__(self, scale: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 6), nn.Linear(6, 2)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """The weights are those of tokens."""
        q, k = self.q(x), self.k(x)
        y: Tensor = self.o(torch.softmax(q @ k.transpose(1, 2) * self.scale(q, k), -1) @ self.v(x))
        return y


SCALES: dict[str, Callable[[Any, Any], Any]] = {
    "tensor": lambda q, k: torch.sqrt(torch.tensor(k.shape[-1], dtype=DOUBLE)).reciprocal(),
    "tensor of a number": lambda q, k: torch.tensor(k.size(-1) ** -0.5, dtype=DOUBLE),
    "tensor of a list": lambda q, k: torch.tensor([k.shape[-1], 4], dtype=DOUBLE).rsqrt().prod(),
    "as_tensor": lambda q, k: torch.as_tensor(q.shape[-1], dtype=DOUBLE).rsqrt(),
    "new_tensor": lambda q, k: q.new_tensor(k.shape[-1]).rsqrt(),
    "cast": lambda q, k: torch.tensor(k.size(-1)).to(k).rsqrt(),
    "full": lambda q, k: torch.full((), k.shape[-1], dtype=DOUBLE).rsqrt(),
    "scalar_tensor": lambda q, k: torch.scalar_tensor(k.shape[-1], dtype=DOUBLE).rsqrt(),
    "entries": lambda q, k: torch.tensor(k.numel(), dtype=DOUBLE).rsqrt(),
    "width and length": lambda q, k: torch.tensor([k.shape[-1], k.shape[1]], dtype=DOUBLE).rsqrt().prod(),
    "features of a sample": lambda q, k: torch.tensor(k.numel() // k.shape[0], dtype=DOUBLE).rsqrt(),
    "comparison": lambda q, k: (torch.arange(12) < torch.tensor(k.shape[-1])).sum() / 12,
}


@pytest.mark.parametrize("layer", ["q", "k"])
@pytest.mark.parametrize("name", SCALES)
def test_a_width_in_a_tensor_stays(name: str, layer: str) -> None:
    net = Attention(SCALES[name]).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (torch.zeros(2, 5, 4, dtype=DOUBLE),)), layer)
    assert grown.get_parameter("k.weight").shape == (16, 4)
    for training in (False, True):
        net.train(training)
        grown.train(training)
        for shape in ((2, 5, 4), (1, 1, 4), (3, 8, 4), (2, 16, 4)):
            x = torch.randn(shape, dtype=DOUBLE)
            torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)


def test_all_sizes_of_a_tensor_in_a_tensor_are_refused_in_plain_words() -> None:
    net = Attention(lambda q, k: torch.tensor(k.shape, dtype=DOUBLE)[-1].rsqrt()).double().eval()
    traced = fxgrow.trace(net, (torch.zeros(2, 5, 4, dtype=DOUBLE),))
    with pytest.raises(fxgrow.GrowthRefused, match=r"FXG116.*the new size: a number in its arguments") as e:
        fxgrow.widen(traced, "k")
    assert "lift_fresh" not in str(e.value)
