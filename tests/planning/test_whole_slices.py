"""Slices that take all units: they end at the width of a layer, and must take all units of longer inputs, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxgrow

Part = Callable[[nn.Module, Tensor], Tensor]
ALL: dict[str, Part] = {
    "channels": lambda m, h: h[:, :8],
    "channels, by an attribute": lambda m, h: h[:, : m.width],
    "channels of each head": lambda m, h: h.unflatten(1, (2, 4))[:, :, :4].flatten(1, 2),
}


class Sliced(nn.Module):
    """A convolution, a part of what it gives, and another one."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.a, self.b, self.part, self.width = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 2, 1), part, 8

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.part(self, self.a(x).relu()))
        return y


class Flat(nn.Module):
    """Reads as many numbers of the flattened volume as it knows, also where there are more: `times` units' at most."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.part = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(8, 2), part

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.part(self.a(x).flatten(1)))
        return y


@pytest.mark.parametrize("part", ALL)
def test_a_slice_of_all_units_grows(part: str) -> None:
    torch.manual_seed(0)
    model = Sliced(ALL[part]).double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 3, 6, dtype=torch.float64),)), "a", factor=2)
    for length in (6, 9, 1):
        x = torch.randn(2, 3, length, dtype=torch.float64)
        torch.testing.assert_close(grown(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "part",
    [lambda h: h[:, :8], lambda h: h.narrow(1, 0, 8), lambda h: h.split(8, 1)[0]],
    ids=["slice", "narrow", "split"],
)
def test_a_slice_that_cuts_longer_inputs_is_refused(part: Callable[[Tensor], Tensor]) -> None:
    model = Flat(part).double().eval()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 2, dtype=torch.float64),))
    longer = torch.randn(2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(gm(longer), model(longer), rtol=0, atol=0)
    for scheme in ("r2r", "zero", "auto"):
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.widen(gm, "a", factor=2, scheme=scheme)
