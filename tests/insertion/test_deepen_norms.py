"""Halves under norms inside a new block: twins see the same statistics, and nothing old is among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

from .deepened import EXACT, apart, gradients


def images(groups: int, channels: int, size: int = 6) -> tuple[torch.fx.GraphModule, Tensor]:
    """A network with a group norm, and images for it."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, channels)
    model = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(channels, 2, 1))
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    return fxgrow.trace(model.double().eval(), (x,)), x


@pytest.mark.parametrize("block", ["basic", "bottleneck", "depthwise"])
@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (1, 1), (3, 6), (3, 9), (2, 4), (4, 4)])
def test_any_number_of_groups(groups: int, channels: int, block: str) -> None:
    gm, x = images(groups, channels)
    plan = fxgrow.plan_deepen(gm, after="2", block=block)
    assert dict(plan.inserts[0].settings)["norm"] == "group"
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT
    (insert,) = plan.inserts
    found = gradients(deeper, x, insert.name)
    slow = {f"{insert.name}.{n}" for n in insert.slow}
    assert all((g > 1e-12) == (n not in slow) for n, g in found.items() if deeper.get_parameter(n).dim() > 1)
    assert fxgrow.Plan.from_json(plan.to_json()) == plan


class Between(nn.Module):
    """Two layers with a norm between."""

    def __init__(self, channels: int, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Linear(channels, width), norm, nn.GELU()
        self.second = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.act(self.norm(self.first(x))))
        return y


class Centred(nn.Module):
    """What a layer norm does without its scale, by hand."""

    def forward(self, x: Tensor) -> Tensor:
        y = x - x.mean(-1, keepdim=True)
        return y / (y.var(-1, keepdim=True) + 1e-5).sqrt()


NORMS: list[Any] = [
    lambda: nn.LayerNorm(6),
    lambda: nn.RMSNorm(6),
    lambda: nn.Softmax(-1),
    Centred,
    lambda: nn.Sequential(nn.Unflatten(1, (6, 1)), nn.BatchNorm1d(6), nn.Flatten()),
]


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_in_the_middle_of_a_users_block(norm: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
    gm = fxgrow.trace(model.eval(), (x,))
    plan = fxgrow.plan_deepen(gm, after="1", block=lambda channels: Between(channels, norm(), 6))
    deeper = fxgrow.apply(plan, gm)
    assert "second.weight is two opposite halves over 6 units" in plan.inserts[0].silenced[0]
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT
    found = gradients(deeper, x, plan.inserts[0].name)
    assert all(g > 1e-12 for n, g in found.items() if deeper.get_parameter(n).dim() > 1)


class Windowed(nn.Module):
    """A linear layer over the last axis of images, a norm of channels behind it, and another one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), norm, nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return y


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(4), lambda: nn.InstanceNorm2d(4), lambda: nn.GroupNorm(4, 4)])
def test_halves_along_an_axis_that_statistics_are_taken_over(norm: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    gm = fxgrow.trace(model.double().eval(), (x,))
    plan = fxgrow.plan_deepen(gm, after="1", block=lambda _: Windowed(norm()))
    deeper = fxgrow.apply(plan, gm)
    assert "second.weight is two opposite halves over 8 units" in plan.inserts[0].silenced[0]
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT
    with torch.no_grad():  # running statistics do not matter to twins
        for name, buffer in deeper.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
    assert apart(gm, deeper, x) < EXACT


def test_a_block_for_the_width_of_the_example_in_a_model_of_any_width() -> None:
    gm, _ = images(1, 4)
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take"):
        fxgrow.plan_deepen(gm, after="2", block=lambda _: Windowed(nn.BatchNorm2d(4)))


class Pair(nn.Module):
    """Two units between two layers, and something of both."""

    def __init__(self, channels: int, function: Any) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(channels, 2), nn.Linear(2, channels), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.function(self.first(x)))
        return y


class Sided(nn.Module):
    """An instance norm over two units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(1, 2), nn.InstanceNorm1d(channels), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.norm(self.first(x.unsqueeze(-1))))).squeeze(-1)
        return y


FLAT: list[Any] = [
    lambda y: torch.relu(y - y.mean(-1, keepdim=True)),
    lambda y: torch.relu((y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-5).sqrt()),
    lambda y: torch.relu(y * y.var(-1, keepdim=True)),
    lambda y: torch.relu(y.softmax(-1) - 0.5),
]


@pytest.mark.parametrize("build", [Sided, *(partial(Pair, function=function) for function in FLAT)])
def test_what_is_the_same_for_two_equal_units_would_never_learn(build: Any) -> None:
    gm = fxgrow.trace(
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double(), (torch.randn(5, 3).double(),)
    )
    with pytest.raises(fxgrow.GrowthRefused):
        fxgrow.plan_deepen(gm, after="1", block=build)


def test_two_equal_units_and_nothing_else_are_not_normalised() -> None:
    gm, _ = images(1, 2, size=1)
    with pytest.raises(fxgrow.GrowthRefused, match="the group norm of two equal values is zero"):
        fxgrow.plan_deepen(gm, after="2", block="basic")
    assert fxgrow.plan_deepen(gm, after="2", block="basic", hidden=4).inserts
    gm = fxgrow.trace(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), (torch.randn(5, 3),))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.plan_deepen(gm, after="1", block=lambda channels: Between(channels, nn.LayerNorm(2), 2))
    assert "normalisation that mixes them" in str(caught.value)


def test_in_a_network_that_exists_halves_would_change_the_statistics() -> None:
    layered = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    for gm, place in ((images(1, 4)[0], "0"), (fxgrow.trace(layered, (torch.randn(5, 3),)), "0")):
        with pytest.raises(fxgrow.GrowthRefused) as caught:
            fxgrow.plan_widen(gm, place, factor=2, scheme="r2r")
        assert caught.value.kind is fxgrow.Kind.NORM


@pytest.mark.parametrize("training", [False, True])
def test_all_channels_of_a_single_group_can_be_copied(training: bool) -> None:
    gm, x = images(1, 4)
    wider = fxgrow.widen(gm, "0", factor=3)
    norm: Any = wider.get_submodule("1")
    assert (norm.num_groups, norm.num_channels) == (1, 12)
    assert apart(gm, wider, x, training=training) < EXACT
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.plan_widen(gm, "0", by=3)
    assert caught.value.kind is fxgrow.Kind.NORM
    assert "two or three times the width: copies of every unit leave its statistics unchanged" in str(caught.value)


@pytest.mark.parametrize("groups", [2, 4])
def test_of_more_groups_whole_ones_are_added(groups: int) -> None:
    gm, x = images(groups, 4)
    wider = fxgrow.widen(gm, "0", by=4)
    norm: Any = wider.get_submodule("1")
    assert (norm.num_groups, norm.num_channels) == (2 * groups, 8)
    assert apart(gm, wider, x) < EXACT
