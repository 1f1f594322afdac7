"""Functions that are defined for some numbers only: new units stay among them, or the growth is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxgrow
from fxgrow import Kind

EXACT = 1e-12


class Net(nn.Module):
    """A layer that is positive on inputs from 0 to 1, as after training, a function of it, and a reader."""

    def __init__(self, function: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(5, 8), nn.Linear(8, 3), function
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        self.var: Tensor
        self.register_buffer("var", torch.rand(8) + 0.5)
        with torch.no_grad():
            self.a.weight.abs_().mul_(0.1)
            self.a.bias.abs_().add_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.function(self, self.a(x)))
        return y


def model(function: Callable[[Net, Tensor], Tensor]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    made, x = Net(function).double().eval(), torch.rand(16, 5, dtype=torch.float64)
    assert made(x).isfinite().all()
    return made, x


LEFT: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "log": lambda _, h: h.log(),
    "sqrt": lambda _, h: h.sqrt(),
    "rsqrt": lambda _, h: h.rsqrt(),
    "a root": lambda _, h: h**0.5,
    "a negative power": lambda _, h: h**-1.5,
    "a learned power": lambda m, h: h**m.scale,
    "logit": lambda _, h: torch.logit(h / 4),
    "acosh": lambda _, h: torch.acosh(h + 1),
    "xlogy": lambda m, h: torch.special.xlogy(m.scale, h),
    "xlogy of itself": lambda _, h: torch.xlogy(h, h),
    "log1p": lambda _, h: h.log1p(),
    "asin": lambda _, h: torch.asin(h / 4),
    "a quotient by what may be cut off": lambda _, h: 1 / h.relu(),
    "a logarithm of what may be cut off": lambda _, h: torch.log(h.relu()),
}
KEPT: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a root of a square": lambda _, h: (h.square() + 1e-6).sqrt(),
    "a logarithm of softplus": lambda _, h: F.softplus(h).log(),
    "a logarithm of an exponential": lambda _, h: torch.log(h.exp() + 1),
    "a power of what is clamped": lambda _, h: h.clamp(min=1e-3).pow(1.7),
    "a logarithm of shares": lambda _, h: torch.log(torch.sigmoid(h) * 0.5 + 0.1),
    "logit that clamps": lambda _, h: torch.logit(h / 4, eps=1e-3),
    "a statistic that is kept": lambda m, h: h * torch.rsqrt(m.var + 1e-5),
    "a logarithm of a scale": lambda m, h: h * m.scale.log(),
    "a quotient": lambda _, h: 1 / h,
    "the odd power -1": lambda _, h: h**-1,
}


@pytest.mark.parametrize("name", LEFT)
def test_new_units_are_copies_where_others_could_leave_the_domain(name: str) -> None:
    made, x = model(LEFT[name])
    gm = fxgrow.trace(made, (x,))
    assert (fxgrow.widen(gm, "a", to=11)(x) - made(x)).abs().max() < EXACT
    said = "new units that are drawn at random may have other values"
    for scheme in ("r2r", "zero", "morphism", "mean"):
        with pytest.raises(fxgrow.GrowthRefused, match=said) as caught:
            fxgrow.widen(gm, "a", scheme=scheme)
        assert caught.value.kind is Kind.NO_PROOF
        assert 'scheme="net2net"' in caught.value.refusal.hint
    assert (fxgrow.widen(gm, "a", scheme="net2net")(x) - made(x)).abs().max() < EXACT


@pytest.mark.parametrize("name", KEPT)
def test_units_that_are_in_the_domain_whatever_they_are_may_be_drawn(name: str) -> None:
    made, x = model(KEPT[name])
    gm = fxgrow.trace(made, (x,))
    for scheme in ("r2r", "zero"):
        assert (fxgrow.widen(gm, "a", scheme=scheme)(x) - made(x)).abs().max() < EXACT


def test_copies_are_not_recommended_where_they_do_not_prove_either() -> None:
    made, x = model(lambda _, h: h.log() / h.logsumexp(1, keepdim=True))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(made, (x,)), "a")
    assert "net2net" not in caught.value.refusal.hint


@pytest.mark.parametrize("name", ["log", "sqrt", "rsqrt", "logit", "acosh", "xlogy"])
def test_drawn_units_forced_into_a_domain_are_nan(name: str) -> None:
    made, x = model(LEFT[name])
    wider = fxgrow.widen(fxgrow.trace(made, (x,)), "a", to=10, scheme="net2net")
    with torch.no_grad():  # a pair of halves, as r2r would make it
        wider.get_parameter("a.weight")[8:] = -1.0
        wider.get_parameter("b.weight")[:] = torch.cat(
            [made.get_parameter("b.weight"), torch.tensor([[1.0, -1.0]] * 3)], 1
        )
    assert not wider(x).isfinite().any()
