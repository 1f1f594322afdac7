"""New blocks and the guards of a trace: other inputs are refused before a block takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

EXACT = 1e-12


def halved(h: Tensor) -> Tensor:
    return F.avg_pool2d(h, 2)


class Sized(nn.Module):
    """An image whose width decides something, by a range of widths that holds one of them only."""

    def __init__(self, body: Callable[[Sized, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def by_the_input(model: Sized, x: Tensor) -> Tensor:
    h = model.first(x)
    if int(x.shape[-1] * 1.5) != 12:
        h = h * 2
    y: Tensor = model.last(h)
    return y


def by_the_value(model: Sized, x: Tensor) -> Tensor:
    h = model.first(x)
    y = torch.relu(h)
    if int(h.size(-1) * 1.5) != 12:
        y = y * 2
    z: Tensor = model.last(y.view(-1, 8, h.size(-2), h.size(-1)))
    return z


def by_several(model: Sized, x: Tensor) -> Tensor:
    n = x.shape[-1]
    h = model.first(x)
    if n * 2 > 15 and round(n / 2) < 5:
        h = h * 2
    y: Tensor = model.last(h)
    return y


def by_what_comes_later(model: Sized, x: Tensor) -> Tensor:
    h = halved(torch.relu(model.first(x)))
    if int(h.shape[-1] * 1.5) != 6:
        h = h * 2
    y: Tensor = model.last(h)
    return y


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("place", [{"after": "first"}, {"before": "last"}])
@pytest.mark.parametrize("block", ["mlp", "basic"])
@pytest.mark.parametrize("body", [by_the_input, by_the_value, by_several])
def test_a_guard_of_sizes_is_asked_before_a_new_block(body: Any, block: str, place: Any) -> None:
    module = Sized(body).double().eval()
    gm = fxgrow.trace(module, (numbers(2, 3, 8, 8),))
    deeper = fxgrow.deepen(gm, block=block, **place)
    again = fxgrow.deepen(deeper, block=block, **place)
    for grown in (deeper, again):
        assert fxgrow.verify(module, grown).held
        for training in (False, True):
            x = numbers(3, 3, 9, 8) if block == "basic" else numbers(2, 3, 5, 8)
            expected = module.train(training)(x)
            torch.testing.assert_close(grown.train(training)(x), expected, rtol=0, atol=EXACT)
        module.eval()
        grown.eval()
        for model in (gm, grown):
            with pytest.raises(fxgrow.UsageError) as caught:
                model(numbers(2, 3, 8, 12))
            assert caught.value.kind is fxgrow.Kind.OTHER_DECISION


def test_a_block_that_would_forestall_a_guard_behind_it_is_refused() -> None:
    module = Sized(by_what_comes_later).double().eval()
    gm = fxgrow.trace(module, (numbers(2, 3, 8, 8),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take") as caught:
        fxgrow.deepen(gm, after="first", block="mlp")
    assert caught.value.kind is fxgrow.Kind.NO_VALUE
    for place in ({"after": "first", "block": "basic"}, {"before": "last", "block": "mlp"}):
        deeper = fxgrow.deepen(gm, **place)  # type: ignore[arg-type]  # places and blocks by name
        x = numbers(3, 3, 9, 8)
        torch.testing.assert_close(deeper(x), module(x), rtol=0, atol=EXACT)
        with pytest.raises(fxgrow.UsageError) as unlike:
            deeper(numbers(2, 3, 8, 12))
        assert unlike.value.kind is fxgrow.Kind.OTHER_DECISION
