"""Widths that end a slice of everything, or stand in a tuple of sizes: they are edited where they are written."""

# ruff: noqa: RUF005  tuples that are added to sizes are what is tested here

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.plans.plan import AXES, RECOMPUTED

Body = Callable[[Any, Tensor], Tensor]
FLAT, LINE, IMAGE = (4, 3), (2, 3, 10), (2, 3, 6, 6)


class Between(nn.Module):
    """Two layers and a function of the first one's eight channels between them."""

    def __init__(self, body: Body, rank: int) -> None:
        super().__init__()
        self.width, self.body = 8, body
        layer: Any = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}[rank]
        self.a = layer(3, 8) if rank == 0 else layer(3, 8, 3, padding=1)
        self.b = layer(8, 2) if rank == 0 else layer(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.body(self, torch.tanh(self.a(x))))
        return out


def grown(model: nn.Module, inputs: tuple[Any, ...], *others: tuple[Any, ...], **options: Any) -> fxgrow.Plan:
    """Widen `a`, and compare with the original module for all inputs, in double precision; the plan."""
    traced = fxgrow.trace(model, inputs)
    plan = fxgrow.plan_widen(traced, "a", **options)
    assert fxgrow.Plan.from_json(plan.to_json()) == plan
    assert str(plan)
    wider = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
    for some in (inputs, *others):
        for mode in (False, True):
            torch.testing.assert_close(wider.train(mode)(*some), model.train(mode)(*some), rtol=1e-9, atol=1e-11)
    return plan


def between(body: Body, shape: tuple[int, ...]) -> fxgrow.Plan:
    """The plan for a body between two layers, which is compared at several sizes."""
    torch.manual_seed(0)
    shapes = [shape, (1, *shape[1:]), (5, 3, *(2 * n for n in shape[2:])), (3, 3, *(n + 5 for n in shape[2:]))]
    inputs = [(torch.randn(s, dtype=torch.float64),) for s in shapes]
    return grown(Between(body, len(shape) - 2).double().eval(), inputs[0], *inputs[1:], factor=2)


SLICES: dict[str, tuple[Body, tuple[int, ...]]] = {
    "all channels": (lambda m, h: h[:, : m.width], IMAGE),
    "one slice alone": (lambda m, h: h.transpose(0, 1)[:8].transpose(0, 1), LINE),
    "from the first to the last": (lambda m, h: h[:, 0 : m.width], LINE),
    "the last eight": (lambda m, h: h[:, -m.width :], LINE),
    "from both ends": (lambda m, h: h[:, -8:8], FLAT),
    "more than there are": (lambda m, h: h[:, -9:10], FLAT),
    "in steps of one": (lambda m, h: h[:, 0:8:1], FLAT),
    "behind an ellipsis": (lambda m, h: h[..., :8], FLAT),
    "in front of an ellipsis": (lambda m, h: h[:, :8, ...], IMAGE),
    "with new axes": (lambda m, h: h[None, :, :8, None].flatten(2, 3).squeeze(0), LINE),
    "beside a cut": (lambda m, h: h[:, :8, 1:-2], LINE),
    "beside one unit": (lambda m, h: h[:, :8, 1].unsqueeze(2), LINE),
    "beside numbers": (lambda m, h: h[:, :8, [0, 2, 1]], LINE),
    "an end that is computed": (lambda m, h: h[:, : m.a.in_channels + 5 * h.dim() - 10], LINE),
    "an end that is read": (lambda m, h: h[:, : h.size(1)], LINE),
    "twice": (lambda m, h: h[:, :8][:, -8:], IMAGE),
}


@pytest.mark.parametrize("name", SLICES)
def test_a_slice_of_all_channels_takes_all_of_the_wider_model(name: str) -> None:
    between(*SLICES[name])


def test_only_the_end_that_would_cut_is_edited() -> None:
    plan = between(*SLICES["from the first to the last"])
    assert [(edit.path, edit.old, edit.new) for edit in plan.nodes] == [(("args", 1, 1, "stop"), 8, 16)]


def test_a_slice_that_takes_everything_by_chance_is_refused() -> None:
    def body(m: Any, h: Tensor) -> Tensor:
        return h[:, : h.size(2)].sum(1, keepdim=True).expand(-1, 8, -1)

    torch.manual_seed(0)
    traced = fxgrow.trace(Between(body, 1).double().eval(), (torch.randn(2, 3, 8, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="getitem"):
        fxgrow.widen(traced, "a")


TUPLES: dict[str, tuple[Body, tuple[int, ...]]] = {
    "heads behind the other sizes": (lambda m, h: h.view(h.size()[:-1] + (2, m.width // 2)).tanh().flatten(1), FLAT),
    "the width behind the other sizes": (
        lambda m, h: h.transpose(1, 2).contiguous().view(h.size()[:1] + (-1, m.width)).transpose(1, 2),
        LINE,
    ),
    "between two tuples": (lambda m, h: h.reshape(h.size()[:1] + (m.width,) + h.size()[2:]).sin(), IMAGE),
    "in front": (
        lambda m, h: h.transpose(0, 1).reshape((m.width,) + h.size()[:1] + h.size()[2:]).transpose(0, 1),
        LINE,
    ),
    "a part of a longer tuple": (lambda m, h: h.view((h.shape[:-1] + (2, 4, 7))[:-1]).sin().flatten(1), FLAT),
    "folded with another size": (
        lambda m, h: h.reshape(h.size()[:1] + (m.width * h.size(2),)).sin().view(h.size()),
        LINE,
    ),
    "all sizes as they are read": (lambda m, h: h.flatten(1).sin().view(h.size()[:2] + h.size()[2:]), IMAGE),
    "as a keyword": (lambda m, h: torch.reshape(h, shape=h.shape[:1] + (m.width, 5, 2)).sin().flatten(2), LINE),
}


@pytest.mark.parametrize("name", TUPLES)
def test_numbers_in_a_tuple_of_sizes_are_edited(name: str) -> None:
    body, shape = TUPLES[name]
    if name == "as a keyword":
        torch.manual_seed(0)
        batches = [(torch.randn(n, *shape[1:], dtype=torch.float64),) for n in (2, 5)]
        grown(Between(body, 1).double().eval(), *batches)
    else:
        between(body, shape)


def test_the_tuple_is_put_together_anew_for_the_call_that_needs_it() -> None:
    plan = between(*TUPLES["heads behind the other sizes"])
    assert [(edit.path[0], edit.old) for edit in plan.nodes] == [(RECOMPUTED, "add")]
    assert "computed again" in str(plan)


class Shared(nn.Module):
    """Two layers whose results are viewed in one tuple of sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.size()[:-1] + (2, 4)
        a, b = (torch.tanh(layer(x).view(sizes)).flatten(-2) for layer in (self.a, self.b))
        out: Tensor = self.out(torch.cat([a, b], -1))
        return out


def test_a_tuple_that_another_call_shares_stays_for_that_one() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(n, 3, dtype=torch.float64),) for n in (4, 7)]
    plan = grown(Shared().double().eval(), *batches, factor=1.5)
    assert {edit.node for edit in plan.nodes if edit.path != (AXES,)} == {"view"}


class Attention(nn.Module):
    """Attention as in BERT: heads are told by a tuple behind the other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 2, 3
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size()[:-1] + (self.heads, self.width)).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = ((q @ k.transpose(-1, -2) / self.width**0.5).softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        out: Tensor = self.out(y.view(y.size()[:-2] + (self.heads * self.width,)))
        return out


@pytest.mark.parametrize(("name", "grow"), [("q", "channels"), ("k", "channels"), ("v", "channels"), ("v", "groups")])
def test_attention_whose_heads_stand_in_a_tuple(name: str, grow: Any) -> None:
    torch.manual_seed(0)
    model = Attention().double().eval()
    traced = fxgrow.trace(model, (torch.randn(2, 5, 6, dtype=torch.float64),))
    wider = fxgrow.widen(traced, name, grow=grow)
    for shape in ((2, 5, 6), (3, 7, 6)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(wider(x), model(x), rtol=0, atol=1e-12)


class Warped(nn.Module):
    """Channels that are sampled along an affine map, which is computed from them; its grid has some sizes."""

    def __init__(self, sizes: Callable[[Any], Any], rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer: Any = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.a, self.map, self.b = layer(3, 8, 3, padding=1), nn.Linear(8, rank * (rank + 1)), layer(8, 2, 1)
        self.sizes, self.rank = sizes, rank

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        theta = self.map(h.flatten(2).mean(2)).view(-1, self.rank, self.rank + 1)
        grid = nn.functional.affine_grid(theta, self.sizes(h), align_corners=False)
        out: Tensor = self.b(nn.functional.grid_sample(h, grid, align_corners=False))
        return out


GRIDS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "sizes of an image": (lambda h: h.size(), 2),
    "sizes of a volume": (lambda h: h.shape, 3),
    "a list": (lambda h: list(h.shape), 2),
    "channels that are written": (lambda h: (h.shape[0], 8, *h.shape[2:]), 2),
    "channels that are computed": (lambda h: (h.shape[0], h.shape[1] // 2, h.shape[2] * 2, h.shape[3]), 2),
    "a written space": (lambda h: h.shape[:2] + (5, 4), 2),
    "a width as the height": (lambda h: (h.shape[0], 3, h.shape[1], h.shape[3]), 2),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_has_no_channels(name: str) -> None:
    sizes, rank = GRIDS[name]
    shapes = [(2, 3, *[6] * rank), (1, 3, *range(4, 4 + rank)), (3, 3, *[8] * rank)]
    inputs = [(torch.randn(shape, dtype=torch.float64),) for shape in shapes]
    grown(Warped(sizes, rank).double().eval(), inputs[0], *inputs[1:])
