"""What `inspect` offers grows in plans of many layers, and what it calls impossible does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxgrow
from fxgrow.inspection.survey import Site
from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.coverage.subjects import settle, subjects
from fxgrow.verification.certificate import FLOAT64_BOUND
from fxgrow.verification.compare import distance

from ..models.library import LIBRARY
from ..models.refused import AssertedWidth, DecidedByWidth


class FusedAttention(nn.Module):
    """Queries, keys and values in one weight, with biases of which that of the keys is a constant: only heads may be
    added, for the bias holds no features of a head."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.randn(width))
        self.k_bias: Tensor
        self.register_buffer("k_bias", torch.zeros(width))
        self.v_bias = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        qkv = F.linear(self.norm(x), self.qkv.weight, bias)
        q, k, v = qkv.reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1)
        y: Tensor = self.head(x + self.out(mixed))
        return y


class LogitAttention(nn.Module):
    """Queries and keys are measured from the logarithm of a sum over the features of a head, which cannot grow; heads
    can."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        logits = F.log_softmax(q, -1) @ F.log_softmax(k, -1).transpose(-2, -1)
        y: Tensor = self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))
        return y


class DenseNorms(nn.Module):
    """Features that are put side by side and normalised together: they grow together, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.first = nn.Linear(6, 4)
        self.both = nn.LayerNorm(10)
        self.second = nn.Linear(10, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat((x, F.gelu(self.first(self.norm(x)))), -1)
        y: Tensor = self.head(F.gelu(self.second(self.both(x))))
        return y


class PartlyNormalised(nn.Module):
    """Part of the channels passes a norm that takes copies only; of the others a sum is taken, which zeros
    leave as it is, and copies do not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 12, 3, padding=1)
        self.norm = nn.GroupNorm(1, 4)
        self.mixed = nn.Conv2d(4, 4, 1)
        self.query = nn.Conv2d(4, 3, 1)
        self.key = nn.Conv2d(4, 3, 1)
        self.out = nn.Conv2d(12, 6, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.split(self.stem(x), [4, 8], dim=1)
        one, other = self.norm(one), other + other.sum(1, keepdim=True)
        gate = (self.query(one) * self.key(one)).sum(1, keepdim=True)
        one = self.mixed(one) * gate.sigmoid()
        y: Tensor = self.head(F.relu(self.out(F.silu(torch.cat((one, other), 1)))))
        return y


OF_LIBRARIES = {
    "shifted windows": "swin v2",
    "timm beit": "timm beit of one block",
    **{name: name for name in ("timm rdnet", "timm edgenext", "timm shvit")},
}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "fused attention": (FusedAttention, (2, 5, 8)),
    "logit attention": (LogitAttention, (2, 5, 8)),
    "dense norms": (DenseNorms, (2, 4, 5)),
    "partly normalised": (PartlyNormalised, (2, 2, 6, 6)),
    **{name: (LIBRARY[case].build, LIBRARY[case].shape) for name, case in OF_LIBRARIES.items()},
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A model in float64 whose weights hide nothing, and an input."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    x = torch.randn(shape, dtype=torch.float64)
    return settle(make().double(), (x,)), x


def left_out(plan: fxgrow.Plan) -> set[str]:
    """The names of layers that a plan leaves out."""
    return {note.split(": ")[1] for note in plan.notes if note.startswith("left out: ")}


def agree(traced: fx.GraphModule) -> None:
    """Check that plans of many layers leave out what `inspect` refuses, and nothing else, and that each offer holds."""
    found = fxgrow.inspect(traced)
    refused = {site.path for site in found.refused}
    if not found.widenable:
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.plan_grow(traced, widen=2.0)
        return
    for seed in (0, 1):  # the plan that is kept, and one that is made
        assert left_out(fxgrow.plan_grow(traced, widen=2.0, seed=seed)) == refused
    for site in found.widenable:
        assert grows_alone(traced, site), site.path
    for site in found.refused:
        assert site.refusal is not None
        assert grows_alone(traced, site) == site.refusal.hint.startswith("a smaller width"), site.path


def grows_alone(traced: fx.GraphModule, site: Site) -> bool:
    """Whether a layer can be widened, by channels or by groups, by half or by one unit."""
    ways: tuple[Literal["channels", "groups"], ...] = ("channels", "groups")
    for grow in ways:
        for to in (None, site.width + 1):
            try:
                fxgrow.plan_widen(traced, site.path, grow=grow, to=to)
            except fxgrow.FxgrowError:
                continue
            return True
    return False


@pytest.mark.parametrize("name", ZOO)
def test_plans_of_many_layers_hold_what_inspect_offers(name: str) -> None:
    (subject,) = subjects([name])
    model, inputs = subject.made()
    agree(fxgrow.trace(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_they_agree_where_axes_depend_on_each_other(name: str) -> None:
    model, x = made(name)
    traced = fxgrow.trace(model, (x,))
    agree(traced)
    found = fxgrow.inspect(traced)
    assert {site.refusal.kind for site in found.refused if site.refusal} <= {fxgrow.Kind.OUTPUT, fxgrow.Kind.INPUT}
    for site in found.widenable:
        fxgrow.plan_grow(traced, widen={site.path: 2.0})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_all_of_them_grow_at_once_and_compute_the_same(name: str, training: bool) -> None:
    model, x = made(name)
    traced = fxgrow.trace(model.train(training), (x,))
    grown = fxgrow.grow(traced, widen=2.0)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    assert distance(expected, grown(x)) <= FLOAT64_BOUND
    assert sum(p.numel() for p in grown.parameters()) > 1.5 * sum(p.numel() for p in model.parameters())


def test_heads_are_added_where_their_features_cannot_grow() -> None:
    model, x = made("logit attention")
    plan = fxgrow.plan_grow(fxgrow.trace(model, (x,)), widen=2.0)
    (edit,) = [edit for edit in plan.tensors if "qkv.weight" in edit.names]
    assert edit.new == (48, 8)
    assert [(growth.old, growth.new) for growth in plan.growths] == [(2, 4)]


@pytest.mark.parametrize("make", [DecidedByWidth, AssertedWidth])
def test_a_width_that_is_refused_says_nothing_of_smaller_ones(make: Callable[[], nn.Module]) -> None:
    model, x = make().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    agree(traced)
    (site,) = [site for site in fxgrow.inspect(traced).refused if site.path == "conv1"]
    assert site.refusal is not None
    assert site.refusal.what.startswith("cannot widen conv1 to twice its width: ")
    for widen in (fxgrow.Width(by=1), {"conv1*": fxgrow.Width(by=1)}):
        grown = fxgrow.grow(traced, widen=widen)
        assert grown.get_parameter("conv1.weight").shape[0] == 9
        assert distance(model(x), grown(x)) <= FLOAT64_BOUND
    with pytest.raises(fxgrow.GrowthRefused) as refused:
        fxgrow.plan_widen(traced, "conv1", to=16)
    takes_a_quarter_more = make is AssertedWidth
    assert ("a smaller width, such as factor=1.25" in refused.value.refusal.hint) == takes_a_quarter_more


WIDEN: dict[str, Any] = {
    "a name": {"stem": 2.0},
    "a pattern": {"stem*": 2.0},
    "several": {"s*": 2.0},
    "all but one that is needed": {"first": None, "*": 2.0},
    "a pattern that says None": {"f*": None, "*": 2.0},
    "a function": lambda name, width: None if name == "first" else 2.0,
}


@pytest.mark.parametrize("asked", WIDEN)
def test_plans_of_some_layers_take_along_what_nobody_named(asked: str) -> None:
    model, x = made("dense norms")
    traced = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_grow(traced, widen=WIDEN[asked])
    grown = fxgrow.apply(plan, traced)
    wide = {name for name in ("stem", "first", "second") if grown.get_parameter(f"{name}.bias").numel() > 7}
    kept = asked in ("all but one that is needed", "a pattern that says None", "a function")
    assert wide == ({"second"} if kept else {"stem", "first", *(["second"] if asked == "several" else [])})
    assert ("stem" in left_out(plan)) == kept
    assert "first" not in left_out(plan)
    assert distance(model(x), grown(x)) <= FLOAT64_BOUND


def test_one_layer_takes_along_what_is_normalised_with_it() -> None:
    model, x = made("dense norms")
    traced = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_widen(traced, "stem", factor=3)
    assert [note.partition(": ")[2] for note in plan.notes if note.startswith("first")] == [
        "normalised together with the layers that are named, by the same factor"
    ]
    grown = fxgrow.apply(plan, traced)
    assert grown.get_parameter("stem.weight").shape == (18, 5)
    assert grown.get_parameter("first.weight").shape == (12, 18)
    assert distance(model(x), grown(x)) <= FLOAT64_BOUND


def test_one_layer_takes_nothing_along_where_copies_cannot_be_even() -> None:
    model, x = made("dense norms")
    with pytest.raises(fxgrow.GrowthRefused, match="normalisation that mixes them"):
        fxgrow.plan_widen(fxgrow.trace(model, (x,)), "stem", by=1)


def test_several_schemes_serve_one_set_of_axes() -> None:
    model, x = made("partly normalised")
    plan = fxgrow.plan_grow(fxgrow.trace(model, (x,)), widen=2.0)
    (edit,) = [edit for edit in plan.tensors if "stem.weight" in edit.names]
    assert all(f"state='{state}'" in str(edit) for state in ("copy", "zero"))


def test_answers_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made("dense norms")
    traced = fxgrow.trace(model, (x,))
    found = fxgrow.inspect(traced)
    monkeypatch.setattr("fxgrow.inspection.growable._answers", None)  # what is asked again fails
    assert left_out(fxgrow.plan_grow(traced, widen=2.0)) == {site.path for site in found.refused}
    assert fxgrow.inspect(traced).widenable == found.widenable


def test_answers_are_found_anew_for_a_changed_model() -> None:
    model, x = made("dense norms")
    traced = fxgrow.trace(model, (x,))
    assert {site.width for site in fxgrow.inspect(traced).sites if site.path == "stem"} == {6}
    fxgrow.widen(traced, "stem", inplace=True)
    assert {site.width for site in fxgrow.inspect(traced).sites if site.path == "stem"} == {12}
