"""Code that does something else for inputs of other sizes: other operators, axes, operands, or in one mode alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import GrowthRefused


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


class Layers(nn.Module):
    """Two layers with something between them."""

    def __init__(self, body: Callable[..., Tensor], *, kernel: int = 0) -> None:
        super().__init__()
        self.a: nn.Module = nn.Conv2d(3, 8, kernel) if kernel else nn.Linear(6, 8)
        self.b: nn.Module = nn.Conv2d(8, 3, 1) if kernel else nn.Linear(8, 3)
        self.body = body

    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        y: Tensor = self.b(self.body(torch.relu(self.a(x)), x, other))
        return y


@torch.fx.wrap
def softmax_by_length(h: Tensor) -> Tensor:
    return torch.softmax(h, -1 if h.shape[1] > 16 else 1)


@torch.fx.wrap
def centred_if_one(h: Tensor) -> Tensor:
    return h - h.mean(-1 if h.shape[1] == 1 else 1, keepdim=True)


@torch.fx.wrap
def normed_if_small(h: Tensor) -> Tensor:
    return F.group_norm(h, 4) if h.shape[-1] < 8 else h


@torch.fx.wrap
def width_for(h: Tensor) -> int:
    return h.shape[-1] // (2 if h.shape[1] < 16 else 4)


@torch.fx.wrap
def as_eight(h: Tensor) -> Tensor:
    return h.reshape(-1, 8).view(h.shape[0], h.shape[1], 8) if h.shape[1] > 16 else h


@torch.fx.wrap
def tail_of_units(h: Tensor) -> Tensor:
    return h * h[..., h.shape[-1] // 2 :].sum(-1, keepdim=True) if h.shape[1] > 16 else h


def norm(h: Tensor, groups: int) -> Tensor:
    return F.group_norm(h.transpose(1, 2), groups).transpose(1, 2)


REFUSED: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], int]] = {
    "another axis": (lambda h, x, _: softmax_by_length(h), (normal(2, 8, 6),), 0),
    "another axis of one token": (lambda h, x, _: centred_if_one(h), (normal(2, 8, 6),), 0),
    "an axis by steps": (lambda h, x, _: h * torch.softmax(h, 1 + x.shape[1] // 16), (normal(2, 8, 6),), 0),
    "an axis by a difference": (lambda h, x, _: h.cumsum(x.shape[1] - 7), (normal(2, 8, 6),), 0),
    "small images": (lambda h, x, _: normed_if_small(h), (normal(2, 3, 16, 16),), 3),
    "part of a code's choice": (
        lambda h, x, _: h * h[..., : width_for(h)].sum(-1, keepdim=True),
        (normal(2, 8, 6),),
        0,
    ),
    "a width as a number": (lambda h, x, _: as_eight(h), (normal(2, 8, 6),), 0),
    "the second half": (lambda h, x, _: tail_of_units(h), (normal(2, 8, 6),), 0),
    "two lengths that differ": (
        lambda h, x, y: norm(h, y.shape[1] - x.shape[1]),
        (normal(2, 5, 6), normal(2, 7, 6)),
        0,
    ),
    "length less batch": (lambda h, x, _: norm(h, x.shape[1] - x.shape[0]), (normal(2, 4, 6),), 0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_units_that_code_treats_otherwise_at_other_sizes_do_not_grow(name: str) -> None:
    body, inputs, kernel = REFUSED[name]
    gm = fxgrow.trace(Layers(body, kernel=kernel).double().eval(), inputs)
    with pytest.raises(GrowthRefused, match="for inputs of other sizes"):
        fxgrow.widen(gm, "a", factor=2)


@torch.fx.wrap
def project(h: Tensor, short: Tensor, long: Tensor) -> Tensor:
    return F.linear(h, short if h.shape[1] <= 16 else long)


def test_another_parameter_for_long_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(5, 3)
            self.short, self.long = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5, 8))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(torch.relu(project(torch.relu(self.a(x)), self.short, self.long)))
            return y

    gm = fxgrow.trace(Two().double().eval(), (normal(2, 8, 6),))
    with pytest.raises(GrowthRefused, match="long: its units are tied to others that grow"):
        fxgrow.widen(gm, "short")


@torch.fx.wrap
def normed_in(h: Tensor, on: bool) -> Tensor:
    return norm(h, 4) if on and h.shape[1] > 16 else h


class Moded(nn.Module):
    def __init__(self, *, training: bool) -> None:
        super().__init__()
        self.a, self.b, self.on = nn.Linear(6, 8), nn.Linear(8, 3), training

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(normed_in(torch.relu(self.a(x)), self.training == self.on))
        return y


def test_long_inputs_in_evaluation_mode_alone() -> None:
    gm = fxgrow.trace(Moded(training=False).double(), (normal(2, 8, 6),))
    with pytest.raises(GrowthRefused, match="for inputs of other sizes"):
        fxgrow.widen(gm, "a")


def test_long_inputs_in_training_mode_alone_leave_evaluation_mode() -> None:
    model = Moded(training=True).double().eval()
    gm = fxgrow.trace(model, (normal(2, 8, 6),))
    plan = fxgrow.plan_widen(gm, "a")
    assert plan.eval_only == ("normed_in",)
    x = normal(2, 24, 6)
    assert torch.allclose(fxgrow.apply(plan, gm)(x), model(x), rtol=0, atol=1e-12)


def test_code_that_is_the_identity_up_to_the_end_of_a_table() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(10, 6), nn.Embedding(20, 6)
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.words(x) + self.positions(torch.arange(x.shape[1]))
            y: Tensor = self.b(normed_in(torch.relu(self.a(h)), True))
            return y

    gm = fxgrow.trace(Tokens().double().eval(), (torch.randint(10, (2, 12)),))
    with pytest.raises(GrowthRefused, match="for inputs of other sizes"):
        fxgrow.widen(gm, "a")


@torch.fx.wrap
def padded_windows(h: Tensor) -> Tensor:
    y = h.permute(0, 2, 3, 1)
    if y.shape[1] % 4:
        y = F.pad(y, (0, 0, 0, 0, 0, -y.shape[1] % 4))
    return y.permute(0, 3, 1, 2)


@torch.fx.wrap
def gated_if_long(h: Tensor) -> Tensor:
    return h * h[..., :4].sum(-1, keepdim=True).sigmoid() if h.shape[1] > 16 else h


@torch.fx.wrap
def added_one_by_one(h: Tensor) -> Tensor:
    for t in range(h.shape[1]):
        h = h + torch.tanh(h[:, t : t + 1])
    return h


@torch.fx.wrap
def summed_if_long(h: Tensor) -> Tensor:
    return h + h.mean(1, keepdim=True) if h.shape[1] > 16 else h


GROWS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "windows padded if need be": (
        lambda h, x, _: padded_windows(h),
        (2, 3, 8, 8),
        ((2, 3, 9, 8), (1, 3, 3, 5)),
    ),
    "units that stay, read if long": (lambda h, x, _: gated_if_long(h), (2, 8, 6), ((2, 24, 6), (1, 40, 6))),
    "a loop over tokens": (lambda h, x, _: added_one_by_one(h), (2, 20, 6), ((1, 7, 6), (1, 31, 6))),
    "a mean of tokens if long": (lambda h, x, _: summed_if_long(h), (2, 8, 6), ((2, 24, 6),)),
}


@pytest.mark.parametrize("name", GROWS)
def test_code_that_leaves_new_units_alone_at_other_sizes(name: str) -> None:
    body, shape, others = GROWS[name]
    model = Layers(body, kernel=1 if len(shape) == 4 else 0).double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (normal(*shape),)), "a")
    for size in (shape, *others):
        for training in (False, True):
            x = normal(*size)
            want = copy.deepcopy(model).train(training)(x)
            assert torch.allclose(grown.train(training)(x), want, rtol=0, atol=1e-11)


class Gate(nn.Module):
    """The second input may have one channel, which is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)) + torch.sigmoid(gate))
        return y


def test_an_input_of_one_channel_does_not_fit_a_block() -> None:
    gm = fxgrow.trace(Gate().double().eval(), (normal(2, 3, 5, 5), normal(2, 8, 5, 5)))
    with pytest.raises(GrowthRefused, match="2x1x5x5 for others, which the block would not take"):
        fxgrow.deepen(gm, after="sigmoid")


def test_a_users_block_with_a_shorter_table_than_the_model() -> None:
    class Causal(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.positions, self.last = nn.Parameter(torch.randn(16, channels)), nn.Linear(channels, channels)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(torch.tanh(x + self.positions[: x.shape[1]]))
            return y

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions, self.head = nn.Embedding(10, 8), nn.Embedding(20, 8), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.words(x) + self.positions(torch.arange(x.shape[1])))
            return y

    gm = fxgrow.trace(Tokens().double().eval(), (torch.randint(10, (2, 12)),))
    with pytest.raises(GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="add", block=Causal, scheme="zero")
