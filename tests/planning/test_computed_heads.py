"""Attention whose number of heads, or whose width, `forward` computes from another width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import shifted_window_attention
from torchvision.models.video.swin_transformer import shifted_window_attention_3d

import fxgrow
from fxgrow import Kind, Plan

Heads = Callable[[Tensor, Tensor], Any]


def of_width(x: Tensor, y: Tensor) -> Any:
    """A head for four channels."""
    return y.shape[-1] // 4


class Windows(nn.Module):
    """Window attention of two heads behind a layer."""

    window, shift = (4, 4), (2, 2)
    function: Any = staticmethod(shifted_window_attention)

    def __init__(self, heads: Heads, *, cosine: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = heads
        self.i, self.qkv, self.proj, self.o = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)
        tokens = int(torch.tensor(self.window).prod())
        self.bias = nn.Parameter(torch.randn(1, 2, tokens, tokens))
        self.scale = nn.Parameter(torch.randn(2, 1, 1)) if cosine else None
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y, more = self.i(x), {} if self.scale is None else {"logit_scale": self.scale}
        given = y, self.qkv.weight, self.proj.weight, self.bias, list(self.window), self.heads(x, y), list(self.shift)
        z: Tensor = self.o(y + self.function(*given, **more))
        return z


class VideoWindows(Windows):
    """The same over videos."""

    window, shift = (2, 2, 2), (1, 1, 1)  # type: ignore[assignment]  # of another length
    function: Any = staticmethod(shifted_window_attention_3d)


class Function(nn.Module):
    """Torch's function of attention, whose width and number of heads are computed."""

    def __init__(self, heads: Heads, needs: Callable[[Tensor], Any] = lambda _: False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.needs = heads, needs
        self.i, self.qkv, self.proj, self.o = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.i(x)
        given = y, y, y, y.shape[-1], self.heads(x, y), self.qkv.weight, self.qkv.bias, None, None, False, 0.0
        last = self.proj.weight, self.proj.bias
        z, _ = F.multi_head_attention_forward(*given, *last, need_weights=self.needs(x))
        out: Tensor = self.o(y + z)
        return out


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "windows": (lambda: Windows(of_width), (2, 8, 8, 5)),
    "cosine windows": (lambda: Windows(of_width, cosine=True), (2, 8, 8, 5)),
    "video windows": (lambda: VideoWindows(of_width), (2, 4, 4, 4, 5)),
    "the function": (lambda: Function(of_width), (4, 2, 5)),
    "its width alone": (lambda: Function(lambda x, y: 2), (4, 2, 5)),
}


@pytest.mark.parametrize("layer", ["i", "qkv.weight", "proj.weight"])
@pytest.mark.parametrize("name", CASES)
def test_heads_that_follow_from_a_width_are_known(name: str, layer: str) -> None:
    make, shape = CASES[name]
    model = make()
    x = torch.randn(shape, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,), leaf=(shifted_window_attention, shifted_window_attention_3d))
    for options in ({}, {"grow": "groups"}):
        plan = fxgrow.plan_widen(traced, layer, **options)  # type: ignore[arg-type]  # they are of its options
        for again in (plan, Plan.from_json(plan.to_json())):
            grown = fxgrow.apply(again, traced)
            for more in (x, torch.randn(shape, dtype=torch.float64).repeat(2, *[1] * (len(shape) - 1))):
                torch.testing.assert_close(grown(more), model(more), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("model", "argument"),
    [
        (lambda: Function(lambda x, y: x.shape[1]), "num_heads"),
        (lambda: Function(of_width, lambda x: x.shape[1] > 1), "need_weights"),
    ],
)
def test_what_follows_from_the_inputs_is_refused_by_name(model: Callable[[], nn.Module], argument: str) -> None:
    traced = fxgrow.trace(model(), (torch.randn(4, 2, 5, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match=f"its {argument} is computed from the inputs") as caught:
        fxgrow.widen(traced, "i")
    assert caught.value.kind is Kind.INEXPRESSIBLE
    assert "test_computed_heads.py" in caught.value.refusal.where
