"""What holds for the example's sizes holds for others: sizes varied one by one, small ones, and the ends of tables."""

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

    def __init__(self, body: Callable[..., Tensor], *, conv: bool = False) -> None:
        super().__init__()
        self.a: nn.Module = nn.Conv2d(3, 8, 1) if conv else nn.Linear(6, 8)
        self.b: nn.Module = nn.Conv2d(8, 3, 1) if conv else nn.Linear(8, 3)
        self.body = body

    def forward(self, x: Tensor, other: Any = None) -> Tensor:
        y: Tensor = self.b(self.body(torch.relu(self.a(x)), x, other))
        return y


def rest(h: Tensor, start: Any, axis: int = -1) -> Tensor:
    """All units, times a sum of those from a number on."""
    part = h[:, start:] if axis == 1 else h[..., start:]
    return h * part.sum(axis, keepdim=True)


def grouped(h: Tensor, number: Any) -> Tensor:
    """Units are normalised within groups of a number that follows the input."""
    parts = h.unflatten(1, (number, -1))
    y: Tensor = (parts / (1 + parts.abs().sum(2, keepdim=True))).flatten(1, 2)
    return y


REFUSED: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], bool]] = {
    "the height less the width": (lambda h, x, _: rest(h, x.shape[2] - x.shape[3], 1), (normal(2, 3, 8, 8),), True),
    "padded by that": (
        lambda h, x, _: F.pad(h, (0, 0, 0, 0, x.shape[2] - x.shape[3], x.shape[3] - x.shape[2])),
        (normal(2, 3, 8, 8),),
        True,
    ),
    "groups of the proportions": (
        lambda h, x, _: grouped(h, 2 * x.shape[2] // x.shape[3]),
        (normal(2, 3, 8, 8),),
        True,
    ),
    "one length less another": (
        lambda h, x, y: rest(h, x.shape[1] - y.shape[1]),
        (normal(2, 5, 6), normal(2, 5, 6)),
        False,
    ),
    "groups by two lengths": (
        lambda h, x, y: F.group_norm(h.unflatten(1, (-1, 4)).mean((1, 2)), x.shape[1] - y.shape[1] + 4),
        (normal(2, 8, 6), normal(2, 8, 6)),
        False,
    ),
    "a number": (lambda h, x, n: h * h[:, :n].sum(-1, keepdim=True), (normal(2, 6), 12), False),
    "groups by steps": (
        lambda h, x, _: grouped(h.transpose(1, 2), x.shape[1] // 8).transpose(1, 2),
        (normal(2, 8, 6),),
        False,
    ),
    "groups of a norm": (
        lambda h, x, _: F.group_norm(h.transpose(1, 2), x.shape[1] // 8 * 2).transpose(1, 2),
        (normal(2, 8, 6),),
        False,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_units_that_other_sizes_take_or_group_otherwise_do_not_grow(name: str) -> None:
    body, inputs, conv = REFUSED[name]
    gm = fxgrow.trace(Layers(body, conv=conv).double().eval(), inputs)
    with pytest.raises(GrowthRefused, match="for inputs of other sizes"):
        fxgrow.widen(gm, "a", factor=2)


@torch.fx.wrap
def padded_to_four(h: Tensor) -> Tensor:
    height, width = h.shape[-2:]
    if height % 4 or width % 4:
        h = F.pad(h, (0, -width % 4, 0, -height % 4))
    return h


@torch.fx.wrap
def shifted_if_long(h: Tensor) -> Tensor:
    return F.pad(h, (1, -1)) if h.shape[1] > 8 else h


@torch.fx.wrap
def normed_if_long(h: Tensor) -> Tensor:
    return F.group_norm(h.transpose(1, 2), 4).transpose(1, 2) if h.shape[1] > 16 else h


@torch.fx.wrap
def mean_of_entries(h: Tensor) -> Tensor:
    return h * torch.stack(h.unbind(1)).mean(0).unsqueeze(1)


@pytest.mark.parametrize("body", [lambda h, x, _: shifted_if_long(h), lambda h, x, _: normed_if_long(h)])
def test_code_that_runs_other_operators_on_units_at_other_sizes(body: Callable[..., Tensor]) -> None:
    gm = fxgrow.trace(Layers(body).double().eval(), (normal(2, 8, 6),))
    with pytest.raises(GrowthRefused, match="for inputs of other sizes"):
        fxgrow.widen(gm, "a")


GROWS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "padded if need be": (
        lambda h, x, _: padded_to_four(h),
        (2, 3, 14, 14),
        ((2, 3, 16, 16), (1, 3, 5, 9), (3, 3, 4, 7)),
    ),
    "as many entries as there are": (lambda h, x, _: mean_of_entries(h), (2, 8, 6), ((1, 3, 6), (3, 17, 6))),
    "as many chunks": (
        lambda h, x, _: h * torch.stack(h.chunk(x.shape[1], 1)).mean(0),
        (2, 8, 6),
        ((1, 3, 6), (3, 17, 6)),
    ),
}


@pytest.mark.parametrize("name", GROWS)
def test_operators_on_other_axes_may_follow_the_sizes(name: str) -> None:
    body, shape, others = GROWS[name]
    model = Layers(body, conv=len(shape) == 4).double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (normal(*shape),)), "a", factor=2)
    for size in (shape, *others):
        x = normal(*size)
        assert torch.allclose(grown(x), model(x), rtol=0, atol=1e-11)


CUTS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "slice": (lambda h, x, _: h[:, : x.shape[0]], (40, 6)),
    "split": (lambda h, x, _: h.split(x.shape[1] // 4, -1)[0], (2, 16, 6)),
    "chunk": (lambda h, x, _: h.chunk(x.shape[1] // 8, -1)[0], (2, 16, 6)),
    "pad": (lambda h, x, _: F.pad(h, (0, x.shape[1] // 8 - 1)), (2, 8, 6)),
    "repeat": (lambda h, x, _: h.repeat(1, 1, x.shape[1] // 8), (2, 8, 6)),
    "steps": (lambda h, x, _: h[..., :: x.shape[1] // 8], (2, 8, 6)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_block_does_not_stand_behind_what_other_sizes_cut(name: str) -> None:
    body, shape = CUTS[name]
    model = Layers(lambda h, x, _: body(h, x, None).mean(-1, keepdim=True).expand(h.shape)).double().eval()
    gm = fxgrow.trace(model, (normal(*shape),))
    with pytest.raises(GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, before="mean", block="mlp")


class Squeeze(nn.Module):
    """A user's block with a batch norm behind its own pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.norm(x.mean((2, 3))))[:, :, None, None]
        y: Tensor = self.last(torch.relu(self.first(x)) * gates)
        return y


class Halved(nn.Module):
    """A user's block that gives other sizes back where the height is odd."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels, 3, 2, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.last(torch.tanh(self.first(x))), scale_factor=2)


def test_a_users_block_that_gives_other_sizes_back() -> None:
    gm = fxgrow.trace(Layers(lambda h, x, _: h, conv=True).eval(), (torch.randn(2, 3, 8, 8),))
    with pytest.raises(GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="a", block=Halved)


def test_a_users_block_with_a_batch_norm_behind_its_own_pooling() -> None:
    gm = fxgrow.trace(Layers(lambda h, x, _: h, conv=True), (torch.randn(2, 3, 64, 64),))
    assert fxgrow.plan_deepen(gm, after="a", block=Squeeze, scheme="zero").eval_only


def check_one_sample(model: nn.Module, shape: tuple[int, ...], place: str) -> None:
    gm = fxgrow.trace(model, (normal(*shape),))
    plan = fxgrow.plan_deepen(gm, after=place)
    assert not plan.eval_only
    one = normal(1, *shape[1:])
    deeper = fxgrow.apply(plan, gm)
    assert torch.allclose(deeper.train()(one), copy.deepcopy(model).train()(one), rtol=0, atol=1e-12)


def test_a_batch_as_large_as_the_images_is_told_from_them() -> None:
    pooled = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    check_one_sample(pooled.double(), (32, 3, 32, 32), "2")


def test_images_are_halved_until_one_value_is_left() -> None:
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8))
    model = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, 2, 1)).double()
    gm = fxgrow.trace(model, (normal(2, 3, 64, 64),))
    deeper, small = fxgrow.deepen(gm, after="4"), normal(1, 3, 8, 8)
    assert torch.allclose(deeper.train()(small), copy.deepcopy(model)(small), rtol=0, atol=1e-12)


class Causal(nn.Module):
    """A user's block with a table for at most sixteen tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positions, self.last = nn.Parameter(torch.randn(16, channels)), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(x + self.positions[: x.shape[1]]))
        return y


@pytest.mark.parametrize("length", [8, 16])
def test_a_block_need_not_take_more_tokens_than_the_models_table_has(length: int) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions, self.head = nn.Embedding(10, 8), nn.Embedding(16, 8), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.words(x) + self.positions(torch.arange(x.shape[1])))
            return y

    model = Tokens().double().eval()
    gm = fxgrow.trace(model, (torch.randint(10, (2, length)),))
    deeper = fxgrow.deepen(gm, after="add", block=Causal, scheme="zero")
    for n in (1, 5, 16):
        x = torch.randint(10, (3, n))
        assert torch.allclose(deeper(x), model(x), rtol=0, atol=1e-12)


class NormedByData(nn.Module):
    """A batch norm that takes its statistics from the data in evaluation mode, and not in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        return F.batch_norm(self.a(x), n.running_mean, n.running_var, n.weight, n.bias, not self.training)


def test_one_sample_that_a_model_takes_in_training_mode_alone() -> None:
    check_one_sample(NormedByData().double().eval(), (3, 6), "a")
