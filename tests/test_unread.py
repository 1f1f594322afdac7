"""Units that nothing reads: new ones would never learn, and are refused, unless others that grow in step are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind

from .deepened import EXACT, apart

X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCHEMES = ("auto", "r2r", "net2net", "zero", "mean")


class Part(nn.Module):
    """A layer of which a part is returned, or read by another layer."""

    def __init__(self, part: Callable[[Tensor], Tensor], width: int = 0) -> None:
        super().__init__()
        self.first, self.part = nn.Linear(4, 6), part
        self.last = nn.Linear(width, 3) if width else nn.Identity()
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.part(self.first(x)))
        return y


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("part", [lambda h: h[:, :1], lambda h: h[:, 5:], lambda h: h.split([5, 1], 1)[1]])
def test_units_of_a_part_that_is_dropped(part: Callable[[Tensor], Tensor], scheme: str) -> None:
    gm = fxgrow.trace(Part(part), (X,))
    with pytest.raises(GrowthRefused, match="nothing reads the units that would be added") as caught:
        fxgrow.widen(gm, "first", by=1, scheme=scheme)
    assert caught.value.kind is Kind.DEAD
    assert "first" in {site.path for site in fxgrow.inspect(gm).refused}


@pytest.mark.parametrize("part", [lambda h: h.chunk(2, 1)[0], lambda h: h[:, 3:]])
def test_one_half_is_read(part: Callable[[Tensor], Tensor]) -> None:
    gm = fxgrow.trace(Part(part, 3), (X,))
    wider = fxgrow.widen(gm, "first", factor=2)
    assert apart(gm, wider, X) < EXACT
    assert fxgrow.verify(gm, wider).ok
    assert [tuple(p.shape) for p in wider.last.parameters()] == [(3, 6), (3,)]  # type: ignore[union-attr]  # a layer


def test_what_is_left_out() -> None:
    gm = fxgrow.trace(nn.Sequential(nn.Linear(4, 4), Part(lambda h: h[:, :1])).double(), (X,))
    plan = fxgrow.plan_grow(gm, widen=2.0)
    assert any("left out: 1.first: nothing reads" in note for note in plan.notes)
    assert {name for edit in plan.tensors for name in edit.names} == {"0.weight", "0.bias", "1.first.weight"}
