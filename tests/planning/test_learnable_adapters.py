"""Learnable adapters on skip paths: the channels may be on any axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

EXACT = 1e-12


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """A residual block of convolutions."""

    def __init__(self, conv: Callable[..., nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.d, self.b = conv(3, 8, 3, padding=1), conv(8, 8, 1), conv(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        y: Tensor = self.b(h + self.d(F.gelu(h)))
        return y


class Video(Residual):
    """Images of a video (n, f, c, h, w), one by one; they are joined as a video."""

    def forward(self, x: Tensor) -> Tensor:
        n, f = x.shape[:2]
        h = self.a(x.flatten(0, 1)).unflatten(0, (n, f))
        h = h + self.d(F.gelu(h).flatten(0, 1)).unflatten(0, (n, f))
        y: Tensor = self.b(h.flatten(0, 1))
        return y


class ChannelsSecond(nn.Module):
    """Features that are second at the join, whatever stands behind them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.d, self.b = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        joined = h.movedim(-1, 1) + self.d(F.gelu(h)).movedim(-1, 1)
        y: Tensor = self.b(joined.movedim(1, -1))
        return y


CASES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], type[nn.Module]]] = {
    "a sequence": (lambda: Residual(nn.Conv1d), [(3, 6), (2, 3, 6)], nn.Conv1d),
    "sequences": (lambda: Residual(nn.Conv1d), [(2, 3, 6), (3, 6)], nn.Conv1d),
    "an image": (Residual, [(3, 6, 6), (2, 3, 6, 6)], nn.Conv2d),
    "images": (Residual, [(2, 3, 6, 6), (3, 6, 6)], nn.Conv2d),
    "a volume": (lambda: Residual(nn.Conv3d), [(3, 4, 4, 4), (2, 3, 4, 4, 4)], nn.Conv3d),
    "volumes": (lambda: Residual(nn.Conv3d), [(2, 3, 4, 4, 4), (3, 4, 4, 4)], nn.Conv3d),
    "a video": (Video, [(2, 3, 3, 6, 6), (1, 2, 3, 5, 5)], nn.Linear),
    "channels second": (ChannelsSecond, [(2, 5, 3), (2, 3), (2, 5, 4, 3)], nn.Linear),
    "features, channels second": (ChannelsSecond, [(2, 3), (2, 5, 3), (2, 5, 4, 3)], nn.Linear),
}


@pytest.mark.parametrize("adapter", ["conv", "pad"])
@pytest.mark.parametrize("node", ["a", "d"])
@pytest.mark.parametrize("name", CASES)
def test_an_adapter_reads_the_channels_where_they_are(name: str, node: str, adapter: Literal["conv", "pad"]) -> None:
    build, shapes, kind = CASES[name]
    module = build().double().eval()
    gm = fxgrow.trace(module, (numbers(*shapes[0]),))
    options: dict[str, Any] = {"skip": "reshape", "adapter": adapter}
    plan = fxgrow.plan_widen(gm, node, factor=2, **options)
    once = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    again = fxgrow.widen(once, node, by=3, **options)
    for grown in (once, again):
        adapters = [m for path, m in grown.named_modules() if path.startswith("adapt_skip")]
        assert [type(m) for m in adapters] == ([kind] if adapter == "conv" else [])
        for shape in shapes:
            torch.testing.assert_close(grown(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)
    assert fxgrow.verify(module, again).held
    assert fxgrow.bisect(gm, once, (numbers(*shapes[0]),)) is None
