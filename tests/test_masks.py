"""Weights under masks of zeros and ones: the weight changes its sign or is shared out, and the mask stays a mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxgrow


class Masked(nn.Linear):
    """A linear layer of which some weights are masked."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) > 0.4).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


class Early(nn.Module):
    """Masked before anything is computed, with nothing but sums between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), Masked(8, 8), Masked(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        last, middle = self.c.weight * self.c.mask, self.b.weight * self.b.mask
        return F.linear(F.linear(self.a(x), middle, self.b.bias), last, self.c.bias)


class OfChannels(nn.Module):
    """A convolution whose kernels are masked channel by channel."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.register_buffer("mask", (torch.rand(4, 8, 1, 1) > 0.4).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(torch.relu(self.a(x)), self.b.weight * self.mask, self.b.bias)


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero", "morphism"])
@pytest.mark.parametrize(
    ("kind", "shape", "layer"), [(Early, (4, 5), "a"), (Early, (4, 5), "b"), (OfChannels, (2, 3, 8, 8), "a")]
)
def test_a_mask_stays_a_mask(kind: type[nn.Module], shape: tuple[int, ...], layer: str, scheme: str) -> None:
    torch.manual_seed(0)
    model, x = kind().double().eval(), torch.randn(shape, dtype=torch.float64)
    wider = fxgrow.widen(fxgrow.trace(model, (x,)), layer, to=13, scheme=scheme)
    assert (wider(x) - model(x)).abs().max() < 1e-12
    for name, mask in wider.named_buffers():
        assert set(mask.unique().tolist()) == {0.0, 1.0}, name
