"""Growths at the edges: flags and numbers that depend on a width, joined axes in groups, plans for other models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Tail = Callable[[nn.Module, Tensor], Any]


class Net(nn.Module):
    """Two convolutions, and whatever comes behind them."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.d = nn.Conv2d(4, 2, 3, padding=1)
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        return self.tail(self.d(y), y)


@pytest.mark.parametrize(
    "tail",
    [
        lambda z, y: z * (y.shape[1] == 4),
        lambda z, y: z + (y.shape[1] > 4),
        lambda z, y: F.dropout(z, 0.1, y.shape[1] > 4),
        lambda z, y: z * y.shape[1] ** -0.5,
        lambda z, y: z / y.shape[1],
    ],
)
def test_flags_and_numbers_computed_from_a_width_are_pinned(tail: Tail) -> None:
    traced = torch.fx.symbolic_trace(Net(tail).eval())
    wider = fxgrow.widen(traced, "a", example_inputs=(IMAGE,))
    assert wider.meta["fxgrow"][-1].nodes
    assert fxgrow.verify(traced, wider, example_inputs=(IMAGE,), training=False).held


@pytest.mark.parametrize("tail", [lambda z, y: (z, y.shape[1]), lambda z, y: (z, 1.0 / y.shape[1])])
def test_numbers_that_are_returned_do_not_change(tail: Tail) -> None:
    traced = torch.fx.symbolic_trace(Net(tail).eval())
    with pytest.raises(fxgrow.GrowthRefused) as refused:
        fxgrow.widen(traced, "a", example_inputs=(IMAGE,))
    assert refused.value.kind is fxgrow.Kind.OUTPUT


def test_verify_compares_returned_numbers() -> None:
    before = torch.fx.symbolic_trace(Net(lambda z, y: (z, 4)).eval())
    after = torch.fx.symbolic_trace(Net(lambda z, y: (z, 5)).eval())
    after.load_state_dict(before.state_dict())
    assert not fxgrow.verify(before, after, example_inputs=(IMAGE,)).held


class GroupsOverCat(nn.Module):
    """A grouped convolution over a concatenation of volumes of different width."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(3, 2, 3, padding=1)
        self.e = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.d = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.d(self.e(torch.cat([self.a(x), self.b(x)], 1)))
        return y


class GroupsOverTwice(nn.Module):
    """One channel, concatenated with itself, read by two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 1, 1)
        self.b = nn.Conv2d(2, 4, 1, groups=2)
        self.d = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z: Tensor = self.d(self.b(torch.cat([y, y], 1).relu()))
        return z


@pytest.mark.parametrize("build", [GroupsOverCat, GroupsOverTwice])
@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("options", [{}, {"factor": 1.3}, {"grow": "groups"}, {"skip": "reshape"}])
def test_groups_over_concatenations_grow(build: type[nn.Module], node: str, options: dict[str, Any]) -> None:
    traced = torch.fx.symbolic_trace(build().eval())
    wider = fxgrow.widen(traced, node, example_inputs=(IMAGE,), **options)
    certificate = fxgrow.verify(traced, wider, example_inputs=(IMAGE,))
    assert certificate.held, certificate


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.a, self.b, self.d = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.d(self.b(self.a(self.e(x).relu()).relu()).relu())
        return y


def test_a_plan_is_refused_by_a_copy_with_other_ties_or_modules() -> None:
    traced = torch.fx.symbolic_trace(Tied())
    plan = fxgrow.plan_widen(traced, "a", example_inputs=(torch.randn(5, 3),))
    fxgrow.apply(plan, copy.deepcopy(traced))
    untied = copy.deepcopy(traced)
    untied.get_submodule("b").register_parameter("weight", nn.Parameter(torch.randn(4, 4)))
    with pytest.raises(fxgrow.UsageError) as refused:
        fxgrow.apply(plan, untied)
    assert refused.value.kind is fxgrow.Kind.STALE_PLAN


def test_ties_made_after_the_analysis_are_seen() -> None:
    model = Tied()
    model.b.weight = nn.Parameter(torch.randn(4, 4))
    traced = torch.fx.symbolic_trace(model)
    inputs = (torch.randn(5, 3),)
    fxgrow.inspect(traced, inputs)
    traced.get_submodule("b").register_parameter("weight", traced.get_submodule("a").get_parameter("weight"))
    assert fxgrow.verify(traced, fxgrow.widen(traced, "a"), example_inputs=inputs).held


def test_a_counter_is_no_axis() -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)))
    with pytest.raises(fxgrow.FxgrowError):
        fxgrow.widen(traced, "1.num_batches_tracked", example_inputs=(IMAGE,))


def test_an_axis_of_one_unit_among_the_factors_of_a_view() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.d = nn.Linear(3, 12), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z: Tensor = self.d(y.reshape(y.shape[0] * 3, 4).relu())
            return z

    traced = torch.fx.symbolic_trace(Heads())
    alone = (torch.randn(1, 3),)  # a batch of one: its axis is one unit beside the heads
    assert fxgrow.verify(traced, fxgrow.widen(traced, "a", example_inputs=alone), example_inputs=alone).held
