"""A certificate is a condition: it is true if it is good enough, whatever noise, modes and deaf probes would feign."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.asserting import assert_function_preserved
from fxgrow.schemes.net2net import Net2Net

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def perceptron() -> fx.GraphModule:
    """A traced network with a hidden layer of 8 units."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return fxgrow.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), (X,))


def spoiled(model: nn.Module, name: str, by: float = 1.0) -> nn.Module:
    """A copy with one entry changed."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        made.get_parameter(name).view(-1)[-1] += by
    return made


def test_a_certificate_is_true_if_it_holds() -> None:
    before = perceptron()
    after = fxgrow.widen(before, "0")
    assert fxgrow.verify(before, after)
    broken = fxgrow.verify(before, spoiled(after, "2.bias"))
    assert not broken
    assert not broken.ok
    assert str(broken).startswith("NOT THE SAME FUNCTION")


@pytest.mark.parametrize("scheme", [Net2Net(noise=0.05), Net2Net(noise=1e-6)], ids=str)
@pytest.mark.parametrize("original", [True, False], ids=["module", "trace"])
def test_noise_that_was_asked_for_is_excused_and_nothing_else(scheme: Net2Net, original: bool) -> None:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    traced = fxgrow.trace(module, (X,))
    after = fxgrow.widen(traced, "0", scheme=scheme, verify=True)
    before = module if original else traced
    certificate = fxgrow.verify(before, after)
    assert certificate
    assert certificate.excused
    assert not certificate.held
    assert "without the noise the largest difference is" in str(certificate)
    for name in ("0.weight", "2.weight", "2.bias"):
        wrong = fxgrow.verify(before, spoiled(after, name, 0.01))
        assert not wrong, name
        assert wrong.difference is not None or original
        assert "also differs without the requested noise" in wrong.refusal().hint


def test_noise_is_followed_through_later_growths() -> None:
    before = perceptron()
    noisy = fxgrow.widen(before, "0", scheme=Net2Net(noise=0.05))
    after = fxgrow.widen(noisy, "0", by=3, scheme="zero")
    assert fxgrow.verify(before, after)
    assert fxgrow.verify(noisy, after).held
    assert not fxgrow.verify(before, spoiled(after, "2.bias"))


@pytest.mark.parametrize("noise", [1e-12, 1e-3, 10.0])
def test_a_plan_that_claims_noise_is_excused_no_other_fault(noise: float) -> None:
    before = perceptron()
    data = json.loads(fxgrow.plan_widen(before, "0").to_json())
    for tensor in data["plan"]["tensors"]:
        if tensor["names"][0] == "2.weight":
            tensor["axes"][0]["layout"]["state"] = "even"  # it was odd, so that halves cancelled
    data["plan"]["noise"] = noise
    try:
        after = fxgrow.apply(fxgrow.Plan.from_json(json.dumps(data)), before)
    except fxgrow.FxgrowError:
        return  # it need not be believed at all
    assert not fxgrow.verify(before, after)


class Modes(nn.Module):
    """A layer, and what is different in training mode."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a = nn.Linear(5, 4)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        if not self.training:
            return y
        match self.kind:
            case "raises":
                raise RuntimeError("no training here")
            case "raises something else":
                raise KeyError("no training here")
            case "raises for another reason":
                raise RuntimeError("no training there")
            case "raises at other sizes":
                raise RuntimeError("no training here\n  at [4, 12], 1.5e-3, object at 0x7fA0")
            case "raises at sizes":
                raise RuntimeError("no training here\n  at [4, 8], 2, object at 0x7f9b")
            case "raises with another last line":
                raise RuntimeError("no training here\n  in [4, 8], 2, object at 0x7f9b")
            case "returns two":
                return y, y * 2
            case "other shape":
                return y[:, :2]
            case "factor":
                return y * 1.001
        return y


@pytest.mark.parametrize("kind", ["raises", "returns two", "other shape", "factor"])
@pytest.mark.parametrize("swap", [False, True])
def test_training_mode_that_is_another_function_does_not_hold(kind: str, swap: bool) -> None:
    pair = (Modes(kind), Modes()) if swap else (Modes(), Modes(kind))
    certificate = fxgrow.verify(*pair, example_inputs=(X,))
    assert not certificate
    with pytest.raises(AssertionError, match="the function changed"):
        assert_function_preserved(*pair, (X,))
    assert fxgrow.verify(*pair, example_inputs=(X,), training=False)


def test_training_mode_in_which_neither_runs_is_not_claimed() -> None:
    certificate = fxgrow.verify(Modes("raises"), Modes("raises"), example_inputs=(X,))
    assert certificate
    assert certificate.modes == ("eval",)
    assert "training mode not compared, and not claimed: a model cannot run on these inputs: no training" in str(
        certificate
    )
    assert not fxgrow.verify(Modes("raises"), Modes("raises something else"), example_inputs=(X,))


def test_models_that_fail_in_training_mode_for_different_reasons_are_not_the_same() -> None:
    certificate = fxgrow.verify(Modes("raises"), Modes("raises for another reason"), example_inputs=(X,))
    assert not certificate
    assert "no training here, and no training there" in str(certificate)
    lines = fxgrow.verify(Modes("raises at sizes"), Modes("raises with another last line"), example_inputs=(X,))
    assert not lines
    assert "no training here: at [4, 8], 2, object at 0x7f9b, and no training here: in [4, 8]" in str(lines)
    assert fxgrow.verify(Modes("raises at sizes"), Modes("raises at other sizes"), example_inputs=(X,))


class Normed(nn.Module):
    """A batch norm over one value per channel, behind it a product whose sizes need not fit."""

    def __init__(self, width: int, *, fits: bool = True) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(5, width), nn.BatchNorm1d(width)
        self.fits = fits

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.fits:
            y: Tensor = self.a(x) @ self.a.weight.new_ones(3, 3)
            return y
        return torch.zeros_like(self.norm(self.a(x))[:, :1]) + x.sum() * self.a.weight.sum() * 0


def test_a_batch_norm_that_fails_hides_no_other_error() -> None:
    one = (X[:1],)
    errors = "Expected more than 1 value per channel"
    same = fxgrow.verify(Normed(8).eval(), Normed(8).eval(), example_inputs=one)
    assert f"not claimed: a model cannot run on these inputs: {errors}" in str(same)
    other = fxgrow.verify(Normed(8).eval(), Normed(8, fits=False).eval(), example_inputs=one)
    assert errors in str(other)
    assert any("raise different errors" in text for text in other.failures)


def test_a_first_step_in_evaluation_mode_is_named() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    for rows, expected in ((1, True), (4, False)):
        traced = fxgrow.trace(module, (X[:rows],))
        certificate = fxgrow.verify(module, fxgrow.widen(traced, "0"), example_inputs=(X[:rows],))
        assert certificate
        notes = [note for note in certificate.notes if "the first training step is checked in evaluation mode" in note]
        assert len(notes) == expected
        assert all("Expected more than 1 value per channel" in note for note in notes)


class Gated(nn.Module):
    """A branch that its gate silences, beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(5, 3)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(x) + self.gate * self.b(torch.relu(self.a(x)))
        return y


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero"])
def test_numbers_that_do_not_feel_the_growth_do_not_count(scheme: str) -> None:
    module = Gated().eval()
    traced = fxgrow.trace(module, (X,))
    after = fxgrow.widen(traced, "a", scheme=scheme, verify=True)
    for before in (module, traced):
        certificate = fxgrow.verify(before, after)
        assert certificate  # by the proof, and because every entry is what the plan says
        assert set(certificate.unfelt) == {"a.weight", "a.bias", "b.weight"}
        assert "the proof stands alone" in str(certificate)
        wrong = fxgrow.verify(before, spoiled(after, "b.weight"))
        assert wrong.float64 == 0
        assert not wrong
        assert any(text.startswith("b.weight: ") for text in wrong.suspects or ())
        assert str(wrong).startswith("NOT SHOWN TO BE THE SAME FUNCTION")
    with pytest.raises(AssertionError, match="not shown to be the same"):
        assert_function_preserved(traced, spoiled(after, "b.weight"))


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero", "morphism"])
def test_growths_are_felt_also_where_new_units_meet_zeros(scheme: str) -> None:
    before = perceptron()
    certificate = fxgrow.verify(before, fxgrow.widen(before, "0", scheme=scheme))
    assert certificate.unfelt == ()


class Honest(torch.autograd.Function):
    """What it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """A copy."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """It cannot be differentiated."""
        raise RuntimeError("no derivatives here")


class Opaque(nn.Module):
    """The same, kept whole by a trace."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Honest.apply(x)
        return y


class Many(nn.Module):
    """Branches that are added to a stream, of which gates silence some."""

    def __init__(self, live: int, dead: int, kind: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            branches = [
                nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
                for _ in range(live + dead)
            ]
        self.live, self.dead = nn.ModuleList(branches[:live]), nn.ModuleList(branches[live:])
        self.gate = nn.Parameter(torch.zeros(()))
        self.kind, self.end = kind, Opaque()

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.live:
            x = x + branch(x)
        for branch in self.dead:
            y = branch(x)
            x = x + (
                y - y.detach() if self.kind == "straight through" else self.gate * y
            )  # the former has a derivative
        match self.kind:
            case "detached":
                return x.detach()
            case "no derivative":
                z: Tensor = self.end(x)
                return z
        return x


@pytest.mark.parametrize(
    ("live", "dead", "kind"),
    [
        (4, 1, ""),
        (2, 3, ""),
        (3, 1, "detached"),
        (3, 1, "no derivative"),
        (3, 1, "straight through"),
        (3, 2, "straight through"),
    ],
)
def test_tensors_that_no_output_feels_are_found_among_many(live: int, dead: int, kind: str) -> None:
    module = Many(live, dead, kind).eval()
    traced = fxgrow.trace(module, (X,))
    after = fxgrow.grow(traced, widen={"dead.*.0": 1.5, "live.*.0": 1.5})
    certificate = fxgrow.verify(traced, after)
    assert certificate
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight")
    assert set(certificate.unfelt) == {f"dead.{k}.{name}" for k in range(dead) for name in names}
    for k in range(dead):
        wrong = fxgrow.verify(traced, spoiled(after, f"dead.{k}.3.weight"), training=False)
        assert wrong.float64 < 1e-12
        assert not wrong
    assert not fxgrow.verify(traced, spoiled(after, "live.1.3.weight"), training=False)


def test_models_without_plans_whose_weights_are_not_felt_are_not_certified() -> None:
    class Deaf(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                self.a = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x) * 0.0 + x.sum()
            return y

    certificate = fxgrow.verify(Deaf(0), Deaf(1), example_inputs=(X,))
    assert certificate.float64 == 0
    assert not certificate
    assert "these numbers prove nothing" in str(certificate)


def test_empty_outputs_prove_nothing() -> None:
    class Detects(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                self.a = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x)
            return y[y > 1e9]

    assert not fxgrow.verify(Detects(0), Detects(1), example_inputs=(X,))


@pytest.mark.parametrize(
    "verb", [lambda m: fxgrow.widen(m, "0", verify=True), lambda m: fxgrow.deepen(m, "0", verify=True)]
)
def test_verbs_that_verify_go_by_the_condition(
    verb: Callable[[fx.GraphModule], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb(perceptron())
    monkeypatch.setattr(fxgrow.Certificate, "ok", property(lambda self: False))
    with pytest.raises(fxgrow.VerificationFailed):
        verb(perceptron())
