"""Norms that a model writes out by hand: what a mean, a variance or a norm over a growing axis lets pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind
from fxgrow.passes.widen import Skip

SAME = 1e-12
"""Relative difference in float64 of two models that compute the same: some hundred roundings."""
WORDS = torch.arange(10).reshape(2, 5) * 7 % 11
Norm = Callable[[Tensor, Tensor], Tensor]


def rms(x: Tensor, weight: Tensor) -> Tensor:
    """As in LLaMA."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3) * weight


def standardised(x: Tensor, weight: Tensor) -> Tensor:
    """A layer norm, its variance by torch."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-3).sqrt() * weight


def unbiased(x: Tensor, weight: Tensor) -> Tensor:
    """As in the annotated transformer: the deviation divides by one less than the count."""
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-3) * weight


def squares(x: Tensor, weight: Tensor) -> Tensor:
    """As in ConvNeXt: the variance is a mean of squares."""
    y = x - x.mean(-1, keepdim=True)
    return y / torch.sqrt(y.pow(2).mean(-1, keepdim=True) + 1e-3) * weight


def unit(x: Tensor, weight: Tensor) -> Tensor:
    """Rows of length one."""
    return F.normalize(x, dim=-1) * weight


class Scaled(nn.Module):
    """A norm with its scale."""

    def __init__(self, norm: Norm, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight)


class Block(nn.Module):
    """Grouped-query attention and a gated MLP, each behind a norm, as in LLaMA."""

    def __init__(self, norm: Norm, *, expanded: bool) -> None:
        super().__init__()
        self.expanded = expanded
        self.before, self.between = Scaled(norm, 16), Scaled(norm, 16)
        self.q, self.k, self.v = (nn.Linear(16, n, bias=False) for n in (32, 16, 16))
        self.o = nn.Linear(32, 16, bias=False)
        self.gate, self.up = nn.Linear(16, 24, bias=False), nn.Linear(16, 24, bias=False)
        self.down = nn.Linear(24, 16, bias=False)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, 8).transpose(1, 2)

    def shared(self, x: Tensor) -> Tensor:
        """Each head of the keys and values, for two of the queries."""
        if not self.expanded:
            return torch.repeat_interleave(x, 2, dim=1)
        b, heads, n, width = x.shape
        return x[:, :, None].expand(b, heads, 2, n, width).reshape(b, heads * 2, n, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = self.heads(self.q(y)), self.shared(self.heads(self.k(y))), self.shared(self.heads(self.v(y)))
        attended = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        x = x + self.o(attended.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
        y = self.between(x)
        out: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return out


class Language(nn.Module):
    """Words, two blocks, a norm, a head."""

    def __init__(self, norm: Norm, *, expanded: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(11, 16)
        self.blocks = nn.Sequential(*(Block(norm, expanded=expanded) for _ in range(2)))
        self.last = Scaled(norm, 16)
        self.head = nn.Linear(16, 11, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.head(self.last(self.blocks(self.words(words))))
        return y


def traced(norm: Norm, *, expanded: bool = False) -> fx.GraphModule:
    return fxgrow.trace(Language(norm, expanded=expanded).double().eval(), (WORDS,))


def difference(before: fx.GraphModule, after: fx.GraphModule) -> float:
    with torch.no_grad():
        was, now = before(WORDS), after(WORDS)
    return float((now - was).abs().max() / was.abs().max())


STREAMS = [
    *((rms, scheme, factor) for scheme in ("auto", "zero", "mean", "morphism") for factor in (1.5, 2)),
    *((unit, scheme, factor) for scheme in ("auto", "zero") for factor in (1.5, 2)),
    *((norm, s, f) for norm in (standardised, unbiased, squares) for s in ("auto", "mean") for f in (1.5, 2)),
    *((norm, "net2net", 2) for norm in (rms, standardised, unbiased, squares, unit)),
]


@pytest.mark.parametrize(("norm", "scheme", "factor"), STREAMS)
def test_a_stream_grows_through_norms_by_hand(norm: Norm, scheme: str, factor: float) -> None:
    gm = traced(norm)
    wider = fxgrow.widen(gm, "words", factor=factor, scheme=scheme)
    assert wider.get_parameter("head.weight").shape[1] == 16 * factor
    assert difference(gm, wider) < SAME


@pytest.mark.parametrize(
    ("norm", "scheme", "factor", "says"),
    [
        (rms, "r2r", 2, "reach a statistic over the whole axis"),
        (rms, "net2net", 1.5, "reach a statistic over the whole axis"),
        (unit, "net2net", 1.5, "reach a statistic over the whole axis"),
        (standardised, "zero", 1.5, "reach a statistic over the whole axis"),
    ],
)
def test_what_would_change_a_statistic_is_refused(norm: Norm, scheme: str, factor: float, says: str) -> None:
    with pytest.raises(fxgrow.GrowthRefused, match=says) as caught:
        fxgrow.widen(traced(norm), "words", factor=factor, scheme=scheme)
    assert caught.value.kind is Kind.STATISTIC


def test_growing_again_changes_one_number() -> None:
    gm = traced(rms)
    once = fxgrow.widen(gm, "words", factor=1.5, scheme="zero")
    twice = fxgrow.widen(once, "words", factor=2, scheme="zero")
    copied = fxgrow.widen(twice, "words", factor=2, scheme="net2net")
    assert max(difference(gm, other) for other in (once, twice, copied)) < SAME
    assert [text in copied.code for text in ("* 1.5", "* 3.0", "* 6.0")] == [False, True, False]
    assert len(list(copied.graph.nodes)) == len(list(once.graph.nodes))


def test_a_plan_with_such_edits_is_data() -> None:
    gm = traced(unbiased)
    plan = fxgrow.plan_widen(gm, "words", factor=2, scheme="net2net")
    again = type(plan).from_json(plan.to_json())
    assert again == plan
    wider = fxgrow.apply(again, gm)
    assert "correction = 2.0" in wider.code
    assert difference(gm, wider) < SAME


@pytest.mark.parametrize("expanded", [True, False])
@pytest.mark.parametrize("grow", ["channels", "groups"])
@pytest.mark.parametrize("layer", ["q", "k", "v"])
def test_grouped_queries_grow(layer: str, grow: str, expanded: bool) -> None:
    gm = traced(rms, expanded=expanded)
    wider = fxgrow.widen(gm, f"blocks.0.{layer}", grow=grow)  # type: ignore[arg-type]  # one of two words
    assert wider.get_parameter(f"blocks.0.{layer}.weight").shape > gm.get_parameter(f"blocks.0.{layer}.weight").shape
    assert difference(gm, wider) < SAME


def squashed(x: Tensor) -> Tensor:
    """A mean that an edit of the graph reaches once the function is traced through."""
    return x / (1 + x.pow(2).mean(-1, keepdim=True))


def squashed_if_any(x: Tensor) -> Tensor:
    """A mean that no edit of the graph can reach: the function branches on a size."""
    return x / (1 + x.pow(2).mean(-1, keepdim=True)) if x.shape[0] else x


torch.fx.wrap("squashed")
torch.fx.wrap("squashed_if_any")


class Inside(nn.Module):
    """A linear layer whose channels are divided by a mean inside a function that fx does not look into."""

    def __init__(self, branching: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.branching = nn.Linear(6, 8), nn.Linear(8, 3), branching

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(squashed_if_any(self.a(x)) if self.branching else squashed(self.a(x)))
        return y


class Unread(nn.Module):
    """Channels of which only a mean behind a rectifier is read: zeros would never learn."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x)).mean(-1)


def test_a_mean_out_of_reach_is_refused_by_name() -> None:
    gm = fxgrow.trace(Inside().double(), (torch.ones(2, 6, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="mean would divide by another number of units") as caught:
        fxgrow.widen(gm, "a", scheme="zero")
    assert caught.value.kind is Kind.INEXPRESSIBLE


def test_a_mean_within_a_function_that_can_be_traced_through_is_multiplied() -> None:
    gm = fxgrow.trace(Inside(branching=False).double(), (torch.ones(2, 6, dtype=torch.float64),))
    wider = fxgrow.widen(gm, "a", scheme="zero")
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(wider(x), gm(x), rtol=0, atol=1e-12)


def test_zeros_that_would_never_learn_are_refused() -> None:
    gm = fxgrow.trace(Unread().double(), (torch.ones(2, 6, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="zeros would get no gradient") as caught:
        fxgrow.widen(gm, "a", scheme="zero")
    assert caught.value.kind is Kind.NO_PROOF


@pytest.mark.parametrize("skip", ["couple", "reshape"])
@pytest.mark.parametrize("scheme", ["auto", "zero", "mean", "net2net", "morphism"])
def test_one_unit_less_its_mean_grows_and_the_mean_is_broadcast_as_before(scheme: str, skip: Skip) -> None:
    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z: Tensor = self.b(y - y.mean(-1, keepdim=True) + 1)
            return z

    before = fxgrow.trace(Lone().double(), (torch.zeros(4, 3, dtype=torch.float64),))
    plan = fxgrow.plan_widen(before, "a", by=1, scheme=scheme, skip=skip)
    assert plan.skips == ()
    assert fxgrow.verify(before, fxgrow.apply(plan, before)).held
