"""Dropout in each mode: what a growth across it claims, whether it follows the mode, is always on, or draws nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind
from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot

X = torch.linspace(-1.0, 1.0, 8 * 4, dtype=torch.float64).reshape(8, 4).sin() + 0.1
SAME = 1e-12
Drop = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """A layer to 8 channels, one from there, and what drops between them."""

    def __init__(self, drop: Drop | nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.drop(torch.tanh(self.a(x))))
        return y


ALWAYS: dict[str, Drop] = {
    "by default": lambda h: F.dropout(h, 0.5),
    "by its flag": lambda h: F.dropout(h, 0.5, training=True),
    "whole channels": lambda h: F.dropout1d(h[..., None], 0.5)[..., 0],
    "alpha": lambda h: F.alpha_dropout(h, 0.5, True),
    "rrelu": lambda h: F.rrelu(h, 0.1, 0.9, True),
    "torch.dropout": lambda h: torch.dropout(h, 0.5, True),
}
NEVER: dict[str, Drop | nn.Module] = {
    "a rate of zero": nn.Dropout(0.0),
    "a rate of zero, by default": lambda h: F.dropout(h, 0.0),
    "a flag": lambda h: F.dropout(h, 0.5, False),
    "equal bounds": lambda h: F.rrelu(h, 0.3, 0.3, True),
}


class Own(nn.Module):
    """A module of the user's own that a tracer keeps whole."""

    def __init__(self, drop: Callable[[Own, Tensor], Tensor]) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, h: Tensor) -> Tensor:
        return self.drop(self, h)


def traced(drop: Drop | nn.Module, *, training: bool) -> fx.GraphModule:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, Own) or super().is_leaf_module(m, module_qualified_name)

    net = Net(drop).double().train(training)
    gm = fx.GraphModule(net, Tracer().trace(net)).train(training)
    return gm


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_always_on_is_not_claimed_for_evaluation_mode(name: str, training: bool) -> None:
    gm = traced(ALWAYS[name], training=training)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.plan_widen(gm, "a", scheme="r2r", example_inputs=(X,))
    assert caught.value.kind is Kind.NO_PROOF
    assert "for every unit" in str(caught.value)
    assert "F.dropout(x, p, self.training)" in str(caught.value)
    plan = fxgrow.plan_widen(gm, "a", example_inputs=(X,))
    assert plan.eval_only == ()
    assert len(plan.redrawn) == 1
    assert f"the same distribution, but other random draws, because of: {plan.redrawn[0]}" in str(plan)
    assert "evaluation mode only" not in str(plan)
    certificate = fxgrow.verify(gm, fxgrow.apply(plan, gm), example_inputs=(X,))
    assert certificate.redrawn == plan.redrawn
    assert str(certificate).startswith("same distribution: ")


def test_the_distribution_stays() -> None:
    gm = traced(ALWAYS["by default"], training=False)
    wider = fxgrow.widen(gm, "a", example_inputs=(X,))
    many = X[:1].expand(200_000, -1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        was, now = gm(many), wider(many)
    assert torch.allclose(was.mean(0), now.mean(0), atol=5e-3)  # about five standard errors
    assert torch.allclose(was.std(0), now.std(0), rtol=1e-2)


def test_halves_would_have_another_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxgrow.capture.lowering.random_ops.has_rate", lambda *_: False)
    gm = traced(ALWAYS["by default"], training=False)
    wider = fxgrow.widen(gm, "a", scheme="r2r", example_inputs=(X,))
    many = X[:1].expand(200_000, -1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        was, now = gm(many), wider(many)
    assert not torch.allclose(was.std(0), now.std(0), rtol=5e-2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scheme", ["r2r", "zero", "net2net"])
@pytest.mark.parametrize("name", NEVER)
def test_what_never_draws_is_claimed_for_both_modes(name: str, scheme: str, training: bool) -> None:
    gm = traced(NEVER[name], training=training)
    plan = fxgrow.plan_widen(gm, "a", scheme=scheme, example_inputs=(X,))
    assert plan.eval_only == ()
    assert plan.redrawn == ()
    wider = fxgrow.apply(plan, gm)
    for mode in (False, True):
        assert torch.allclose(gm.train(mode)(X), wider.train(mode)(X), rtol=0, atol=SAME)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("drop", [nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.RReLU()], ids=lambda m: type(m).__name__)
def test_modules_follow_the_mode(drop: nn.Module, training: bool) -> None:
    gm = traced(drop, training=training)
    plan = fxgrow.plan_widen(gm, "a", scheme="r2r", example_inputs=(X,))
    assert plan.eval_only == ("drop",)
    assert plan.redrawn == ()
    wider = fxgrow.apply(plan, gm)
    assert torch.allclose(gm.eval()(X), wider.eval()(X), rtol=0, atol=SAME)


def test_a_module_left_in_training_mode_is_on() -> None:
    gm = traced(nn.Dropout(0.5), training=False)
    gm.get_submodule("drop").train()
    assert fxgrow.plan_widen(gm, "a", example_inputs=(X,)).redrawn == ("drop",)


OWN: dict[str, tuple[Callable[[Own, Tensor], Tensor], tuple[bool, bool]]] = {
    "always": (lambda m, h: F.dropout(h, 0.5), (True, True)),
    "follows": (lambda m, h: F.dropout(h, 0.5, m.training), (False, True)),
    "its rate follows": (lambda m, h: F.dropout(h, 0.5 if m.training else 0.0), (False, True)),
    "the other way round": (lambda m, h: F.dropout(h, 0.5, not m.training), (True, False)),
    "never": (lambda m, h: F.dropout(h, 0.5, False), (False, False)),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_modules_kept_whole_are_looked_at_in_both_modes(name: str, training: bool) -> None:
    drop, modes = OWN[name]
    gm = traced(Own(drop), training=training)
    program = lower(Snapshot(gm), (X,))
    assert [op.draws for op in program.ops if op.name == "aten::dropout"] == [modes]
    plan = fxgrow.plan_widen(gm, "a", example_inputs=(X,))
    assert bool(plan.redrawn) == modes[0]
    assert bool(plan.eval_only) == (modes == (False, True))


@pytest.mark.parametrize("training", [False, True])
def test_attention_that_drops_weights_is_claimed_for_evaluation_mode(training: bool) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attend(x, x, x, need_weights=False)[0]
            return y

    x = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gm = fxgrow.trace(Attends().double().train(training), (x,))
    plan = fxgrow.plan_widen(gm, "attend.in_proj_weight", grow="groups")
    assert plan.eval_only
    assert not plan.redrawn


def test_the_certificate_leaves_the_draws_out() -> None:
    gm = traced(ALWAYS["by default"], training=False)
    certificate = fxgrow.verify(gm, fxgrow.widen(gm, "a", example_inputs=(X,)), example_inputs=(X,))
    assert certificate.held
    assert "other random draws" in str(certificate)


@pytest.mark.parametrize("follows", [True, False])
def test_a_copied_block_that_draws_is_claimed_in_the_same_way(follows: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
            self.follows = follows
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.up(x))
            y: Tensor = x + self.down(self.drop(h) if self.follows else F.dropout(h, 0.5))
            return y

    torch.manual_seed(0)
    gm = fxgrow.trace(nn.Sequential(nn.Linear(4, 8), Block(), Block(), nn.Linear(8, 2)).double().eval(), (X,))
    plan = fxgrow.plan_deepen(gm, "1", block="clone", scheme="zero")
    assert bool(plan.redrawn) is not follows
    assert bool(plan.eval_only) is follows


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scheme", ["zero", "auto", "r2r"])
def test_a_rate_that_follows_the_mode_is_claimed_for_evaluation_mode(scheme: str, training: bool) -> None:
    class ByRate(Net):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(F.dropout(torch.tanh(self.a(x)), 0.5 if self.training else 0.0))
            return y

    module = ByRate(nn.Identity()).double().train(training)
    gm = fxgrow.trace(module, (X,))
    plan = fxgrow.plan_widen(gm, "a", scheme=scheme)
    assert (len(plan.eval_only), plan.redrawn) == (1, ())
    wider = fxgrow.apply(plan, gm)
    assert torch.allclose(module.eval()(X), wider.eval()(X), rtol=0, atol=SAME)


class AlwaysDrops(nn.Module):
    """Attention, and dropout that is on in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        y, _ = self.attend(x, x, x, need_weights=False)
        return F.dropout(y, 0.3, not self.training)


@pytest.mark.parametrize("training", [False, True])
def test_draws_behind_attention_that_is_written_out_are_others(training: bool) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    net = AlwaysDrops().double().train(training)
    traced = fxgrow.trace(net, (x,))
    plan = fxgrow.plan_widen(traced, "attend.in_proj_weight", factor=3.0)
    assert plan.openings
    assert plan.redrawn == ("dropout",)
    grown = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
    certificate = fxgrow.verify(net, grown)
    assert certificate.redrawn == ("dropout",)
    assert certificate
    data = json.loads(plan.to_json())
    data["plan"]["redrawn"] = []
    with pytest.raises(fxgrow.UsageError, match="FXG008"):
        fxgrow.apply(fxgrow.Plan.from_json(json.dumps(data)), traced)
