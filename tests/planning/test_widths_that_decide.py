"""Widths that grow in what `forward` decides: a growth is taken if the answer is the same for inputs of every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

SHAPES = ((2, 3, 4), (1, 1, 4), (3, 7, 4), (1, 8, 4), (2, 16, 4), (5, 4))


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


class Hidden(nn.Module):
    """Two layers of one width, some code that sees both, and a layer that reads what it returns."""

    def __init__(self, between: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.c, self.b, self.between = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3), between

    def forward(self, x: Tensor) -> Tensor:
        """The code sees the input, the hidden units, and a layer of them."""
        h = torch.tanh(self.a(x))
        y: Tensor = self.b(self.between(x, h, self.c(h)))
        return y


def run(model: nn.Module, x: Tensor) -> Tensor | None:
    """What a model returns; None where its guards raise, or where the code that was written takes no such input."""
    try:
        y: Tensor = model(x)
    except (fxgrow.UsageError, IndexError):
        return None
    return y


def check(net: nn.Module, traced: torch.fx.GraphModule, grown: torch.fx.GraphModule) -> None:
    """The grown model is the module for all inputs that the trace takes, and raises for those for which that raises."""
    for training in (False, True):
        for model in (net, traced, grown):
            model.train(training)
        for shape in SHAPES:
            x = sample(*shape)
            before, after = run(traced, x), run(grown, x)
            assert (before is None) == (after is None), shape
            if after is not None:
                torch.testing.assert_close(after, net(x), rtol=0, atol=1e-12)


def unpacked(x: Any, h: Any, c: Any) -> Any:
    n, *rest = h.shape
    return h.reshape(n, *rest) + c


RANKS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "length of a shape": lambda x, h, c: h + c if len(h.shape) == 3 else (h + c)[None],
    "list": lambda x, h, c: h.view(list(h.shape)) + c,
    "tuple": lambda x, h, c: h.reshape((-1, *tuple(h.shape[1:]))) + c,
    "star": unpacked,
    "loop": lambda x, h, c: h.reshape([n for _, n in enumerate(h.shape)]) + c,
    "size": lambda x, h, c: h.reshape(list(h.size())) + c,
    "element": lambda x, h, c: x if 0 in h.shape else h + c,
    "pairs": lambda x, h, c: h + c if all(p == q for p, q in zip(h.shape, c.shape, strict=True)) else h,
    "two ranks": lambda x, h, c: h + c if len(h.shape) == x.dim() else h,
}


@pytest.mark.parametrize("name", RANKS)
def test_the_number_of_axes_depends_on_no_width(name: str) -> None:
    net = Hidden(RANKS[name]).double().eval()
    traced = fxgrow.trace(net, (sample(2, 3, 4),))
    assert fxgrow.inspect(traced).widenable
    check(net, traced, fxgrow.widen(traced, "a"))


def test_the_length_of_a_shape_whose_rank_is_written_is_not_guarded() -> None:
    def between(x: Any, h: Any, c: Any) -> Any:
        rows = (h + c).view(-1, h.shape[-1])
        n, *rest = rows.shape
        return rows.reshape(n, *rest).view(h.shape)

    net = Hidden(between).double().eval()
    traced = fxgrow.trace(net, (sample(2, 3, 4),))
    assert "decided" not in traced.code
    grown = fxgrow.widen(traced, "a")
    check(net, traced, grown)
    assert run(grown, sample(5, 4)) is not None


LENGTHS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "len": lambda x, h, c: (h + c) / len(h),
    "rows": lambda x, h, c: torch.stack([row * k for k, row in enumerate(h)]) + c,
    "range": lambda x, h, c: torch.stack([h[:, k] for k in range(len(h[0]))], 1) + c,
    "zip": lambda x, h, c: torch.stack([p + q for p, q in zip(h, c, strict=True)]),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_the_length_of_a_tensor_whose_features_grow(name: str) -> None:
    net = Hidden(LENGTHS[name]).double().eval()
    traced = fxgrow.trace(net, (sample(2, 3, 4),))
    assert fxgrow.inspect(traced).widenable
    for plan in (fxgrow.plan_widen(traced, "a"), fxgrow.plan_grow(traced, widen=2)):
        grown = fxgrow.apply(plan, traced)
        assert grown.get_parameter("a.weight").shape == (16, 4)
        check(net, traced, grown)
        assert run(grown, sample(3, 7, 4)) is None


def test_the_length_of_a_tensor_whose_first_axis_grows() -> None:
    net = Hidden(lambda x, h, c: (h + c) * len(h.transpose(0, 2))).double().eval()
    with pytest.raises(fxgrow.GrowthRefused, match=r"FXG119.*the length .* is 8, and at the new width it would be 16"):
        fxgrow.widen(fxgrow.trace(net, (sample(2, 3, 4),)), "a")


STAYS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "same shape": lambda x, h, c: h + c if c.shape == h.shape else h,
    "other shape": lambda x, h, c: h if c.shape != h.shape else h + c,
    "part of the shape": lambda x, h, c: h + c if c.shape[1:] == h.shape[1:] else h,
    "written shape": lambda x, h, c: h + c if (h.shape[0], h.shape[1], c.shape[2]) == h.shape else h,
    "joined shape": lambda x, h, c: h + c if h.shape[:-1] + c.shape[-1:] == h.shape else h,
    "another width": lambda x, h, c: h if x.shape == h.shape else h + c,
    "entries": lambda x, h, c: h + c if c.numel() == h.numel() else h,
    "entries of a shape": lambda x, h, c: h + c if c.shape.numel() >= h.numel() else h,
    "product": lambda x, h, c: h + c if math.prod(h.shape) == c.numel() else h,
    "ratio": lambda x, h, c: h + c if c.numel() / h.numel() == 1.0 else h,
    "positions": lambda x, h, c: h + c if h.numel() // c.shape[-1] > 4 else h,
    "any entries": lambda x, h, c: h + c if h.numel() else x,
    "more than none": lambda x, h, c: h + c if h.numel() > 0 else x,
    "joined axes": lambda x, h, c: h + c if h.flatten(1).shape == c.flatten(1).shape else h,
    "pieces of a width": lambda x, h, c: torch.cat(list((h + c).split(64, -1)), -1),
    "parts of a width": lambda x, h, c: torch.cat([part for part in (h + c).chunk(2, -1) if len(part) > 0], -1),
    "parts of the samples": lambda x, h, c: torch.cat(list((h + c).split(8)), 0),
    "sums": lambda x, h, c: h + c if h.numel() + c.numel() == 2 * h.numel() else h,
}


@pytest.mark.parametrize("name", STAYS)
def test_sizes_that_grow_together_decide_as_before(name: str) -> None:
    net = Hidden(STAYS[name]).double().eval()
    traced = fxgrow.trace(net, (sample(2, 3, 4),))
    check(net, traced, fxgrow.widen(traced, "a"))


ROUNDED: dict[str, tuple[Callable[[Any, Any, Any], Any], int]] = {
    "a quarter": (lambda x, h, c: (h + c) * int(h.shape[-1] * 0.25), 11),
    "a root": (lambda x, h, c: (h + c) * int(c.shape[-1] ** 0.5 + 0.5), 12),
    "of two widths": (lambda x, h, c: (h + c) * int(h.shape[-1] * 0.1 + c.shape[-1] * 0.1), 9),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_number_that_is_rounded_to_the_same_decides_as_before(name: str) -> None:
    between, to = ROUNDED[name]
    net = Hidden(between).double().eval()
    traced = fxgrow.trace(net, (sample(2, 3, 4),))
    check(net, traced, fxgrow.widen(traced, "a", to=to))
    with pytest.raises(fxgrow.GrowthRefused, match="at the new width it would be"):
        fxgrow.widen(traced, "a", to=800)


MIXED = "depends on the width and on sizes of the inputs together"
CHANGES: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "width and length": (lambda x, h, c: h + c if h.shape[-1] > x.shape[1] else h, MIXED),
    "entries and a number": (lambda x, h, c: h + c if h.numel() > 40 else h, MIXED),
    "entries of two widths": (lambda x, h, c: h + c if h.numel() > x.numel() + 20 else h, MIXED),
    "shape and length": (lambda x, h, c: h + c if h.shape[-1:] == x.shape[1:2] else h, MIXED),
    "smaller": (lambda x, h, c: (h + c) * min(h.shape[-1], x.shape[1]), MIXED),
    "rounded": (lambda x, h, c: (h + c) * int(h.numel() * 0.01), MIXED),
    "order": (lambda x, h, c: h + c if h.shape >= c.shape else h, MIXED),
    "number of pieces": (lambda x, h, c: torch.cat(list((h + c).flatten(1).split(64, 1)), 1).view(h.shape), MIXED),
    "number of some": (lambda x, h, c: (h + c) * (1 + len((h + c).flatten(1).split(64, 1)[1:])), MIXED),
    "a written shape": (lambda x, h, c: h + c if h.shape[1:] == (3, 8) else h, "at the new width it would be False"),
    "two widths": (lambda x, h, c: h + c if h.shape[-1] == 2 * x.shape[-1] else h, "at the new width it would be"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_answers_that_a_growth_may_change_are_refused(name: str) -> None:
    between, why = CHANGES[name]
    traced = fxgrow.trace(Hidden(between).double().eval(), (sample(2, 3, 4),))
    with pytest.raises(fxgrow.GrowthRefused, match="FXG119") as caught:
        fxgrow.widen(traced, "a")
    assert why in str(caught.value)


def is_large(h: Tensor) -> bool:
    return h.numel() > 40


def test_code_that_is_kept_whole_and_sees_the_width_does_not_decide() -> None:
    model = Hidden(lambda x, h, c: h + c if is_large(h) else h).double().eval()
    traced = fxgrow.trace(model, (sample(2, 3, 4),), leaf=[is_large])
    with pytest.raises(fxgrow.GrowthRefused, match="answered by is_large, code that sees this width"):
        fxgrow.widen(traced, "a")


PIECES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "of samples": lambda x, h, c: (h + c).split(8)[0],
    "of a length": lambda x, h, c: (h + c).split(8, 1)[0],
    "of a narrow width": lambda x, h, c: (h + c).split(9, -1)[0],
    "of a width": lambda x, h, c: (h + c).split(8, -1)[0],
    "of a wide width": lambda x, h, c: (h + c).split(64, -1)[0],
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_that_takes_all_of_the_example_takes_no_more_than_is_written(name: str) -> None:
    net = Hidden(PIECES[name]).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (sample(2, 3, 4),)), "a")
    for shape in ((2, 3, 4), (3, 7, 4), (9, 1, 4), (2, 12, 4)):
        x = sample(*shape)
        torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)
