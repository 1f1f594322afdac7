"""Numbers that are the same at both sizes of the input that are looked at, and others elsewhere: they go on following
the input, or the growth is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

EXACT = 1e-10
EXAMPLE = (4, 6, 5)
OTHERS = (EXAMPLE, (8, 6, 5), (12, 6, 5), (4, 12, 5), (17, 25, 5))
Body = Callable[[Any, Tensor, Tensor], Tensor]


class Between(nn.Module):
    """Two layers, and a function of the first one's output and of the input between them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.body = nn.Linear(5, 8), nn.Linear(8, 3), body
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.body(self, self.a(x), x))
        return out


FOLLOWING: dict[str, Body] = {
    "a floor": lambda _, h, x: h * (h.shape[-1] / (1 + x.shape[0] // 8)),
    "a shift": lambda _, h, x: h * (h.shape[-1] / (1 + (x.shape[0] >> 3))),
    "a comparison": lambda _, h, x: h * (h.shape[-1] / (1 + (x.shape[1] > 10))),
    "a difference": lambda _, h, x: h * (h.shape[-1] + x.shape[0] // 8),
    "an argument": lambda _, h, x: h.clamp(max=h.shape[-1] * (1 + x.shape[0] // 8) * 0.01),
    "a slope": lambda _, h, x: F.elu(h, alpha=h.shape[-1] / (8 + x.shape[0] // 8)),
    "a full tensor": lambda _, h, x: h + torch.full((1,), h.shape[-1] / (1 + x.shape[0] // 8), dtype=h.dtype),
}
REFUSED: dict[str, Body] = {
    "an epsilon": lambda m, h, x: F.layer_norm(h, (8,), m.gain, eps=1e-5 + x.shape[0] // 8),
    "a correction": lambda _, h, x: h / torch.var_mean(h, -1, correction=x.shape[1] // 6, keepdim=True)[0],
    "a flag": lambda _, h, x: h / h.var(-1, x.shape[0] < 10, True),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_a_number_goes_on_following_the_input(name: str) -> None:
    model = Between(FOLLOWING[name]).double().eval()
    traced = fxgrow.trace(model, (torch.randn(EXAMPLE, dtype=torch.float64),))
    again = fxgrow.widen(fxgrow.widen(traced, "a"), "a", by=4)
    for shape in OTHERS:
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", REFUSED)
def test_a_number_that_has_to_change_and_that_the_input_changes_is_refused(name: str) -> None:
    model = Between(REFUSED[name]).double().eval()
    traced = fxgrow.trace(model, (torch.randn(EXAMPLE, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused) as error:
        fxgrow.widen(traced, "a")
    assert error.value.kind is fxgrow.Kind.INEXPRESSIBLE


@pytest.mark.parametrize(
    "body",
    [
        lambda _, h, x: h / h.std(-1, keepdim=True),
        lambda _, h, x: h - h.var(),
        lambda _, h, x: h - torch.var_mean(h, -1, keepdim=True)[1],
    ],
)
def test_a_variance_is_taken_over_the_axes_that_are_written_there(body: Body) -> None:
    model = Between(body).double().eval()
    traced = fxgrow.trace(model, (torch.randn(3, 5, dtype=torch.float64),))
    grown = fxgrow.widen(traced, "a")
    assert fxgrow.Plan.from_json(fxgrow.plan_widen(traced, "a").to_json())
    for shape in ((3, 5), (7, 5), (2, 3, 5), (2, 2, 3, 5), (5,)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(grown(x), model(x), rtol=0, atol=EXACT)
