"""Inputs with more or fewer axes than the example's: what the module takes, the grown model takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.functional import adapt_skip

EXACT = 1e-12


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Perceptron(nn.Module):
    """A residual branch of features, whatever stands before them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.branch, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(x))
        y: Tensor = self.head(h + torch.relu(self.branch(h)))
        return y


class Image(nn.Module):
    """A residual branch of channels, of one image or of several."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.branch, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(x))
        y: Tensor = self.head(h + torch.relu(self.branch(h)))
        return y


class ChannelsSecond(Perceptron):
    """The features are second at the join, whatever stands behind them."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(x))
        joined = h.movedim(-1, 1) + torch.relu(self.branch(h)).movedim(-1, 1)
        y: Tensor = self.head(joined.movedim(1, -1))
        return y


RANKS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], set[int]]] = {
    "features": (Perceptron, [(3, 4), (2, 5, 4), (4,), (2, 1, 6, 4)], {-1}),
    "sequences": (Perceptron, [(2, 5, 4), (5, 4), (4,)], {-1}),
    "images": (Image, [(2, 3, 5, 5), (3, 5, 6)], {-3}),
    "channels second": (ChannelsSecond, [(3, 4), (2, 5, 4), (2, 3, 5, 4)], {1}),
}


def axes(gm: fx.GraphModule) -> set[object]:
    return {node.args[1] for node in gm.graph.nodes if node.target is adapt_skip}


@pytest.mark.parametrize("scheme", ["r2r", "net2net"])
@pytest.mark.parametrize("widened", ["up", "branch"])
@pytest.mark.parametrize("name", RANKS)
def test_a_skip_path_is_adapted_where_its_channels_are(name: str, widened: str, scheme: str) -> None:
    build, shapes, counted = RANKS[name]
    module = build().double().eval()
    gm = fxgrow.trace(module, (numbers(*shapes[0]),))
    plan = fxgrow.plan_widen(gm, widened, factor=2, scheme=scheme, skip="reshape")
    wider = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    again = fxgrow.widen(wider, widened, by=3, scheme=scheme, skip="reshape")
    assert fxgrow.verify(module, again).held
    for grown in (wider, again):
        assert axes(grown) == counted
        for shape in shapes:
            torch.testing.assert_close(grown(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)


@pytest.mark.parametrize("dim", [-1, -2, -3])
def test_an_adapter_counts_from_the_end_as_from_the_front(dim: Literal[-1, -2, -3]) -> None:
    x = numbers(9, 9, 9)
    for pairs, copies in ([(3, 3)], ()), ([(3, 2), (7, 1)], ((4, 2), (5, 0))):
        expected = adapt_skip(x, dim + 3, 3, pairs, 7, copies)
        assert torch.equal(adapt_skip(x, dim, 3, pairs, 7, copies), expected)
        assert torch.equal(adapt_skip(x[None], dim, 3, pairs, 7, copies)[0], expected)


class Attends(nn.Module):
    """Attention between layers of features, over one sequence or over several; with a mask, if it is given one."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.attend, self.head = nn.Linear(4, 8), nn.MultiheadAttention(8, 2, **options), nn.Linear(8, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor, mask: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        x = self.up(x)
        out: Tensor = self.head(self.attend(x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0])
        return out


def masked(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool).triu(1)


CALLS: dict[str, tuple[dict[str, Any], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "batch first": ({"batch_first": True}, (numbers(3, 5, 4),), (numbers(6, 4),)),
    "batch second": ({}, (numbers(5, 3, 4),), (numbers(6, 4),)),
    "more keys": ({"add_bias_kv": True, "add_zero_attn": True}, (numbers(5, 3, 4),), (numbers(6, 4),)),
    "one mask": ({"batch_first": True}, (numbers(3, 5, 4), masked(5, 5)), (numbers(6, 4), masked(6, 6))),
    "a mask for each head": (
        {"batch_first": True},
        (numbers(3, 5, 4), masked(6, 5, 5)),
        (numbers(6, 4), masked(2, 6, 6)),
    ),
    "both masks, more keys": (
        {"add_bias_kv": True},
        (numbers(5, 3, 4), masked(5, 5), masked(4, 5)[:3]),
        (numbers(6, 4), masked(6, 6), masked(2, 6)[1]),
    ),
}


@pytest.mark.parametrize("widened", ["up", "attend.in_proj_weight"])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("name", CALLS)
def test_attention_that_is_written_out_takes_one_sequence_and_several(name: str, turn: int, widened: str) -> None:
    options, *calls = CALLS[name]
    first, other = calls[::turn]
    module = Attends(**options).double().eval()
    gm = fxgrow.trace(module, first)
    wider = fxgrow.widen(gm, widened, factor=2)
    for given in (first, other):
        torch.testing.assert_close(gm(*given), module(*given), rtol=0, atol=EXACT)
        torch.testing.assert_close(wider(*given), module(*given), rtol=0, atol=EXACT)
    assert fxgrow.verify(module, wider).held


def test_heads_grow_with_and_without_a_batch() -> None:
    module = Attends(batch_first=True).double().eval()
    gm = fxgrow.trace(module, (numbers(3, 5, 4),))
    wider = fxgrow.widen(gm, "attend.in_proj_weight", factor=2, grow="groups")
    for shape in ((3, 5, 4), (6, 4)):
        torch.testing.assert_close(wider(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_layer_takes_one_sequence_and_several_in_both_modes(batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=batch_first)
    module = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 2)).double().eval()
    for shape in ((2, 5, 4), (5, 4)):
        wider = fxgrow.widen(fxgrow.trace(module, (numbers(*shape),)), "0")
        for training in (False, True):
            for other in ((2, 5, 4), (3, 7, 4), (6, 4)):
                x = numbers(*other)
                expected = module.train(training)(x)
                torch.testing.assert_close(wider.train(training)(x), expected, rtol=0, atol=EXACT)
        module.eval()
