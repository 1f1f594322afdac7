"""Verification must fail where something is wrong: planted wrong rules, and planted wrong weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.program.program import Op
from fxgrow.errors import GrowthRefused
from fxgrow.rules import RULES
from fxgrow.rules.arithmetic import Add
from fxgrow.rules.axis_ops import Softmax
from fxgrow.rules.base import Rule, StateContext
from fxgrow.rules.norm import PerChannel, WholeAxis
from fxgrow.rules.pointwise import Unary
from fxgrow.rules.reduce import Reduce
from fxgrow.verification import Certificate

X = torch.zeros(5, 6)

# -- wrong rules ----------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """Layers and vectors that are put together by a function."""

    def __init__(self, call: Callable[[Model, Tensor], Any]) -> None:
        super().__init__()
        self.call = call
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.mean: Tensor
            self.variance: Tensor
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
            self.last = nn.Linear(4, 3)
            self.scale = nn.Parameter(torch.rand(4) + 0.5)
            self.even = nn.Parameter(torch.randn(3, 4))
            self.register_buffer("mean", torch.randn(4))
            self.register_buffer("variance", torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def reads_odd(model: Model, y: Tensor) -> Tensor:
    """A reader that is even, being an exponential, so that what it reads must be odd."""
    return F.linear(y, model.even.exp())


def norm(model: Model, x: Tensor) -> Any:
    """A batch norm whose scale is also the reader of something even."""
    y = F.relu(model.a(x))
    return model.last(F.batch_norm(y, model.mean, model.variance, model.scale)), y @ model.scale


def join(model: Model, x: Tensor) -> Any:
    """An even volume and an odd one are added up."""
    y = model.b(x)
    return model.last(F.relu(model.a(x) + y)), reads_odd(model, y)


class Scaleless(PerChannel):
    """A batch norm that asks nothing of its scale."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(op.args["input"]))


class FirstOnly(Add):
    """A sum in the state of its first operand."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(op.args["self"]))


class Pointwise(WholeAxis):
    """A layer norm that takes each unit by itself."""

    def states(self, op: Op, s: StateContext) -> None:
        marks = s.of(op.args["input"])
        s.set(op.outputs[0], [[s.map_units(op, [x], odd=False, zero=False) for x in row] for row in marks])


class Copied(Softmax):
    """A softmax after which copies are copies, not shares."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(op.args["self"]))


class Misled(WholeAxis):
    """A norm over a whole axis that is described wrongly."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def states(self, op: Op, s: StateContext) -> None:
        told = s.mix
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(s, "mix", lambda op, x, mixing: told(op, x, replace(mixing, **self.changes)))
            super().states(op, s)


def normed(norm: Callable[..., Tensor], *vectors: str) -> Callable[[Model, Tensor], Tensor]:
    """A norm over the layer's units, with scale and shift as named and an epsilon that counts."""

    def call(model: Model, x: Tensor) -> Tensor:
        y = model.a(x)
        y = norm(y, y.shape[-1:], *(getattr(model, name) for name in vectors), eps=0.1)
        z: Tensor = model.last(y)
        return z

    return call


rms = normed(F.rms_norm, "scale")
layer = normed(F.layer_norm, "scale", "mean")
PLANTED: dict[str, tuple[str, Rule, Callable[[Model, Tensor], Any], str]] = {
    "relu is odd": ("relu", Unary(odd=True, zero=True), lambda m, x: reads_odd(m, F.relu(m.a(x))), "r2r"),
    "softmax is pointwise": ("softmax", Unary(), lambda m, x: m.last(m.a(x).softmax(-1)), "r2r"),
    "layer norm is pointwise": ("layer_norm", Pointwise(), layer, "r2r"),
    "a mean is a sum": (
        "mean",
        Reduce(linear=True, zero=True, sums=True),
        lambda m, x: m.last(F.relu(m.a(x))) + m.b(x).mean(-1, keepdim=True) + (m.a(x) * m.b(x)).mean(),
        "r2r",
    ),
    "a norm asks nothing of its scale": ("batch_norm", Scaleless(), norm, "r2r"),
    "a sum is what its first operand is": ("add", FirstOnly(), join, "r2r"),
    "tanh is linear": (
        "tanh",
        Unary(odd=True, zero=True, linear=True),
        lambda m, x: reads_odd(m, m.a(x).tanh()),
        "net2net",
    ),
    "softmax keeps copies": ("softmax", Copied(), lambda m, x: m.last(m.a(x).softmax(-1)), "net2net"),
    "a norm takes any copies": ("layer_norm", Misled(even=True), layer, "net2net"),
    "rms norm keeps its scale": ("rms_norm", Misled(old=1, new=1), rms, "zero"),
    "rms norm keeps its epsilon": ("rms_norm", Misled(epsilon=None), rms, "zero"),
    "layer norm keeps its scale": ("layer_norm", Misled(old=1, new=1), layer, "mean"),
    "layer norm takes no mean": ("layer_norm", Misled(kind="rms_norm"), layer, "zero"),
}
"""By fault: the operator, its wrong rule, a model that shows it, the scheme."""


def grown(call: Callable[[Model, Tensor], Any], scheme: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A model before and after its first layer is widened."""
    before = fxgrow.trace(Model(call).eval(), (X,))
    return before, fxgrow.widen(before, node="a", to=7, scheme=scheme)


def kept_or_refused(call: Callable[[Model, Tensor], Any], scheme: str) -> bool:
    """What right rules make of a model."""
    try:
        return fxgrow.verify(*grown(call, scheme)).held
    except GrowthRefused:
        return True


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_rule_is_caught_by_the_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, rule, call, scheme = PLANTED[name]
    assert kept_or_refused(call, scheme)
    monkeypatch.setitem(RULES, f"aten::{operator}", rule)
    assert not fxgrow.verify(*grown(call, scheme)).held


# -- wrong weights --------------------------------------------------------------------------------------------------


class Right(nn.Module):
    """Two layers with a batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.first, self.norm, self.last = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
            self.norm.running_mean = torch.randn(4)
            self.norm.running_var = torch.rand(4) + 0.5
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.norm(self.first(x))))
        return y


def flip(x: Tensor) -> None:
    """The right half of the first pair changes its sign."""
    x[..., 5].neg_()


def forget(x: Tensor) -> None:
    """The right half of the first pair is as if it had never been drawn."""
    x[5] = 0


def nudge(x: Tensor) -> None:
    """One old entry changes by little."""
    x.view(-1)[0] += 1e-6


def swap(x: Tensor) -> None:
    """Two new units change places with each other's twins."""
    x[..., [5, 6]] = x[..., [6, 5]]


@pytest.mark.parametrize(
    ("tensor", "change"),
    [
        ("last.weight", flip),
        ("last.weight", nudge),
        ("last.weight", swap),
        ("first.weight", forget),
        ("first.weight", nudge),
        ("first.bias", forget),
        ("norm.weight", forget),
        ("norm.bias", forget),
        ("norm.running_mean", forget),
        ("norm.running_var", forget),
    ],
)
def test_a_wrong_weight_is_caught_by_the_numbers(tensor: str, change: Callable[[Tensor], None]) -> None:
    before = fxgrow.trace(Right().eval(), (X,))
    after = fxgrow.widen(before, node="first", factor=2)
    assert fxgrow.verify(before, after).held
    with torch.no_grad():
        change(after.state_dict()[tensor])
    certificate: Certificate = fxgrow.verify(before, after)
    assert not certificate.held
    assert "NOT THE SAME FUNCTION" in str(certificate)
