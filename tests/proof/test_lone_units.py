"""Axes of single units: a product of these can be written in two ways, and every rule must mean the same one."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxgrow

from ..insertion.deepened import EXACT, apart

SCHEMES = ["auto", "r2r", "net2net", "morphism", "zero"]


class Groups(nn.Module):
    """Two groups of three channels, each of which becomes one channel that is read by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1, groups=2)
        self.left, self.right = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.second(self.norm(self.first(x))), 1, 1)
        y: Tensor = self.left(left) - self.right(right)
        return y


class Heads(nn.Module):
    """Four heads of queries on two of keys and values, of which each is read by itself, too."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(6, 12), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 6)
        self.left, self.right = nn.Linear(3, 6), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 3)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        left, right = torch.split(k, 1, 1)
        left, right, y = (part.transpose(1, 2).flatten(2) for part in (left, right, y))
        z: Tensor = self.out(y) + self.left(left) - self.right(right)
        return z


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["first", "second"])
def test_groups_that_are_read_one_by_one(scheme: str, name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    gm = fxgrow.trace(Groups().double().eval(), (x,))
    wider = fxgrow.widen(gm, name, factor=2, scheme=scheme)
    groups: Any = wider.get_submodule("norm").num_groups
    assert groups > 2
    assert wider.get_parameter("first.weight").shape[0] == 3 * groups
    assert apart(gm, wider, x) < EXACT
    assert apart(gm, wider, x, training=True) < EXACT


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_heads_that_are_read_one_by_one(scheme: str, name: str, grow: Literal["channels", "groups"]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    gm = fxgrow.trace(Heads().double().eval(), (x,))
    wider = fxgrow.widen(gm, name, factor=2, scheme=scheme, grow=grow)
    assert wider.get_parameter(f"{name}.weight").shape[0] > gm.get_parameter(f"{name}.weight").shape[0]
    assert apart(gm, wider, x) < EXACT
