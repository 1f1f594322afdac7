"""Channels that are cut through the middle of a group: ShuffleNet's chunk behind a shuffle of an odd number of pairs.

The group that is cut stays as it is, and groups before and behind it grow.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow


class Unit(nn.Module):
    """One of ShuffleNet's units: half of the channels pass, the others go through a branch; then they are shuffled."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(half, 4, 1), nn.ReLU(), nn.Conv2d(4, half, 1), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        kept, given = x.chunk(2, dim=1)
        y = torch.cat([kept, torch.relu(self.branch(given))], 1)
        b, c, h, w = y.size()
        return y.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class Shuffled(nn.Module):
    """Two branches that are shuffled, and units behind them."""

    def __init__(self, half: int, units: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, half, 3, padding=1), nn.Conv2d(3, half, 1)
        self.units = nn.ModuleList(Unit(half) for _ in range(units))
        self.out = nn.Conv2d(2 * half, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
        for unit in self.units:
            y = unit(y)
        out: Tensor = self.out(y)
        return out


def checked(model: nn.Module, path: str, width: int, shape: tuple[int, ...], **options: Any) -> None:
    """Widen, and compare with the original module at several sizes in double precision."""
    torch.manual_seed(0)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    model = model.double().eval()
    traced = fxgrow.trace(model, (torch.randn(shape, dtype=torch.float64),))
    plan = fxgrow.plan_widen(traced, path, **options)
    assert fxgrow.Plan.from_json(plan.to_json()) == plan
    assert str(plan)
    wider = fxgrow.apply(plan, traced)
    for other in (shape, (1, *shape[1:2], *(n + 2 for n in shape[2:]))):
        x = torch.randn(other, dtype=torch.float64)
        torch.testing.assert_close(wider(x), model(x), rtol=1e-10, atol=1e-11)
    assert wider.get_parameter(f"{path}.weight").shape[0] > width


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero"])
@pytest.mark.parametrize("path", ["left", "right", "units.0.branch.2", "units.1.branch.2"])
def test_a_chunk_through_the_middle_of_a_pair(path: str, scheme: str) -> None:
    torch.manual_seed(0)
    checked(Shuffled(15, 2), path, 15, (2, 3, 5, 5), factor=1.5, scheme=scheme)


def test_what_is_cut_inside_the_first_group_stays() -> None:
    torch.manual_seed(0)
    traced = fxgrow.trace(Shuffled(3, 4).double().eval(), (torch.randn(2, 3, 5, 5, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="fixed size"):
        fxgrow.widen(traced, "units.2.branch.2")
    fxgrow.widen(traced, "units.2.branch.0")


class Groups(nn.Module):
    """Three groups of four channels with one scale, of which the first six channels are read apart from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.scale = nn.Linear(3, 12), nn.Parameter(torch.randn(4))
        self.first, self.second = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = (torch.tanh(self.a(x)).unflatten(-1, (3, 4)) * self.scale).flatten(-2)
        first, second = y.split((6, 6), -1)
        out: Tensor = self.first(first) + self.second(second)
        return out


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero"])
def test_a_cut_inside_a_group_that_grows(scheme: str) -> None:
    torch.manual_seed(0)
    checked(Groups(), "a", 12, (4, 3), factor=1.5, scheme=scheme)
