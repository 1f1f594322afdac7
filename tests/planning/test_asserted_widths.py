"""Assertions about a width that grows: the number in them follows it, or the refusal says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

EXACT = 1e-12


class Asserts(nn.Module):
    """Two layers, and an assertion about what is between them."""

    def __init__(self, claim: Callable[[Asserts, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dim, self.up, self.head, self.claim = 8, nn.Linear(4, 8), nn.Linear(8, 2), claim

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        torch._assert(self.claim(self, h), f"{h.shape[-1]} features, not {self.dim}")
        y: Tensor = self.head(h)
        return y


FOLLOWING: dict[str, Callable[[Asserts, Tensor], object]] = {
    "an attribute": lambda m, h: h.shape[-1] == m.dim,
    "a number on the left": lambda m, h: m.dim == h.size(-1),
    "a multiple": lambda m, h: 2 * h.shape[-1] == 16,
    "a weight": lambda m, h: h.shape[-1] == m.head.weight.shape[1],
    "a remainder that stays": lambda m, h: h.shape[-1] % 8 == 0,
}
REFUSED: dict[str, Callable[[Asserts, Tensor], object]] = {
    "a bound": lambda m, h: h.shape[-1] < 9,
    "a remainder": lambda m, h: h.shape[-1] % 3 == 2,
    "a comparison that something else reads": lambda m, h: not_only_asserted(h.shape[-1] == m.dim),
}


def not_only_asserted(claim: object) -> object:
    return claim + 1 == 2  # type: ignore[operator]  # a flag


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_asserted_width_follows_the_width(name: str) -> None:
    module = Asserts(FOLLOWING[name]).double().eval()
    gm = fxgrow.trace(module, (numbers(3, 4),))
    plan = fxgrow.plan_widen(gm, "up")
    wider = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    again = fxgrow.widen(wider, "up", by=8)
    assert fxgrow.verify(module, again).held
    for grown in (wider, again):
        for shape in ((3, 4), (5, 4), (2, 5, 4)):
            torch.testing.assert_close(grown(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)


def test_an_assertion_about_the_input_goes_on_failing_where_it_failed() -> None:
    module = Asserts(lambda m, h: h.shape[0] * h.shape[1] == 24).double().eval()
    wider = fxgrow.widen(fxgrow.trace(module, (numbers(3, 4),)), "up")
    torch.testing.assert_close(wider(numbers(3, 4)), module(numbers(3, 4)), rtol=0, atol=EXACT)
    for model in (module, wider):
        with pytest.raises(AssertionError, match="features, not 8"):
            model(numbers(5, 4))


@pytest.mark.parametrize("name", REFUSED)
def test_an_assertion_that_cannot_follow_says_why(name: str) -> None:
    gm = fxgrow.trace(Asserts(REFUSED[name]).double().eval(), (numbers(3, 4),))
    with pytest.raises(fxgrow.GrowthRefused, match=r"asserts of a width what is not so for the new one") as caught:
        fxgrow.widen(gm, "up")
    assert caught.value.kind is fxgrow.Kind.INEXPRESSIBLE


class Named(nn.Module):
    """A layer that is looked up by a name made of a size."""

    def __init__(self, look_up: Callable[[nn.Module, Tensor], nn.Module]) -> None:
        super().__init__()
        self.up, self.l8, self.table = nn.Linear(4, 8), nn.Linear(8, 2), nn.ModuleDict({"8": nn.Linear(8, 2)})
        self.look_up = look_up

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        y: Tensor = self.look_up(self, h)(h)
        return y


LOOK_UPS: dict[str, Callable[[Any, Tensor], Any]] = {
    "an attribute": lambda m, h: getattr(m, f"l{h.shape[-1]}"),
    "a table": lambda m, h: m.table[str(h.shape[-1])],
}


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_name_made_of_a_size_is_refused_in_plain_words(name: str) -> None:
    with pytest.raises(fxgrow.UsageError, match="a name is made of a traced value") as caught:
        fxgrow.trace(Named(LOOK_UPS[name]), (torch.zeros(3, 4),))
    assert "Proxy" not in str(caught.value)
    assert "h.shape[-1]" in str(caught.value)
