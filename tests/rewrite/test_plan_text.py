"""Plans as JSON: they come back as they were, give identical bits, and are refused when damaged or unfit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxgrow
from fxgrow.models_zoo import ZOO, ResNet

INPUTS = (torch.zeros(2, 1, 8, 8),)
GROWABLE = [name for name in ZOO if not name.startswith("refuse_")]
Data = dict[str, Any]


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def identical(a: nn.Module, b: nn.Module) -> bool:
    x, y = bits(a), bits(b)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("name", GROWABLE)
def test_a_plan_comes_back_and_gives_identical_bits_on_another_copy(name: str) -> None:
    torch.manual_seed(0)
    model = ZOO[name].build().eval()
    inputs = ZOO[name].example_inputs()
    traced, other = fxgrow.trace(model, inputs), fxgrow.trace(copy.deepcopy(model), inputs)
    plan = fxgrow.plan_grow(traced, widen=2)
    again = fxgrow.Plan.from_json(plan.to_json())
    assert again == plan
    assert str(again) == str(plan)
    assert identical(fxgrow.apply(plan, traced), fxgrow.apply(again, other))


def test_fields_of_earlier_plans_are_left_aside() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)).eval()
    traced = fxgrow.trace(model, (torch.zeros(2, 3, 4),))
    plan = fxgrow.plan_widen(traced, "0.self_attn.in_proj_weight")
    data = json.loads(plan.to_json())
    for opening in data["plan"]["openings"]:
        opening["rank"] = 3
    assert data["plan"]["openings"]
    assert fxgrow.Plan.from_json(json.dumps(data)) == plan


@pytest.mark.parametrize("skip", ["couple", "reshape"])
def test_skip_paths_and_new_blocks_come_back(skip: str) -> None:
    torch.manual_seed(0)
    traced = fxgrow.trace(ResNet().eval(), INPUTS)
    plan = fxgrow.plan_grow(traced, widen={"layer2.conv2": 2}, deepen={"layer3": "basic"}, skip=skip)  # type: ignore[arg-type]  # one of the two
    again = fxgrow.Plan.from_json(plan.to_json())
    assert again == plan
    assert identical(fxgrow.apply(plan, traced), fxgrow.apply(again, traced))


@pytest.fixture(scope="module")
def traced() -> fxgrow.trace:  # type: ignore[valid-type]  # a GraphModule
    torch.manual_seed(0)
    return fxgrow.trace(ResNet().eval(), INPUTS)


@pytest.fixture
def data(traced: Any) -> Data:
    found: Data = json.loads(fxgrow.plan_widen(traced, "layer2.conv1", scheme="net2net").to_json())
    return found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ("[]", "it is JSON, but not a plan"),
        ('{"format": "fxgrow plan", "version": 0, "plan": {}}', "version 0"),
        ('{"format": "fxgrow plan", "version": 1}', "None is not a Plan"),
        ('{"format": "fxgrow plan", "version": 1, "plan": {}}', "Plan lacks title"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    with pytest.raises(fxgrow.UsageError, match=said) as caught:
        fxgrow.Plan.from_json(text)
    assert caught.value.kind is fxgrow.Kind.STALE_PLAN


DAMAGE: dict[str, tuple[Callable[[Data], object], str]] = {
    "a name as a number": (lambda p: p["tensors"][0].update(names=[3]), "3 is not a valid str"),
    "an unknown field": (lambda p: p["tensors"][0].update(color="red"), "TensorEdit has no field 'color'"),
    "an unknown layout": (
        lambda p: p["tensors"][0]["axes"][0].update(layout={"is": "Plan"}),
        "is not one of Leaf, Still, Grid, Chain, Woven",
    ),
    "a field less": (lambda p: p["tensors"][0].pop("new"), "TensorEdit lacks new"),
    "a monstrous number": (lambda p: p["tensors"][0].update(new=[10**30, 1]), "is not a valid int"),
    "a flag as a number": (lambda p: p.update(seed=True), "True is not a valid int"),
    "NaN as a seed": (lambda p: p.update(seed=float("nan")), "nan is not a valid int"),
    "an object where a number stands": (
        lambda p: p["modules"][0]["attributes"][0].__setitem__(2, {"x": 1}),
        "is not a number, name or list",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_refused_with_its_place(data: Data, damage: str) -> None:
    change, said = DAMAGE[damage]
    change(data["plan"])
    with pytest.raises(fxgrow.UsageError, match=said):
        fxgrow.Plan.from_json(json.dumps(data))


MISFITS: dict[str, tuple[Callable[[Data], object], str]] = {
    "another width": (lambda p: p["tensors"][0].update(old=[5, 5]), "but this model has"),
    "another name": (lambda p: p["tensors"][0].update(names=["elsewhere.weight"]), "no such tensor"),
    "another module": (lambda p: p["modules"][0].update(path="elsewhere"), "no such module"),
    "a private attribute": (
        lambda p: p["modules"][0]["attributes"][0].__setitem__(0, "_parameters"),
        "no attribute of that module",
    ),
    "axes that do not add up": (lambda p: p["tensors"][0]["new"].__setitem__(0, 999), "its axes"),
    "a copy of nothing": (lambda p: p["tensors"][0]["axes"][0]["layout"].update(source=[10**6]), "copies units of"),
    "turns that are none": (
        lambda p: p["tensors"][0]["axes"][0].update(
            layout={"is": "Woven", "parts": [p["tensors"][0]["axes"][0]["layout"]], "old": 0, "new": 1}
        ),
        "counts units of",
    ),
    "no copies": (lambda p: p["tensors"][0]["axes"][0]["layout"].pop("source"), "which units of"),
    "an unknown state": (lambda p: p["tensors"][0]["axes"][0]["layout"].update(state="magic"), "'magic'"),
    "a tensor that would not fit in memory": (
        lambda p: (
            p["tensors"][0].update(new=[10**9, *p["tensors"][0]["old"][1:]])
            or p["tensors"][0]["axes"][0]["layout"].update(new=10**9, source=[], state="free")
        ),
        "times as large",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_plan_that_does_not_fit_changes_nothing(traced: Any, data: Data, misfit: str, inplace: bool) -> None:
    change, said = MISFITS[misfit]
    change(data["plan"])
    plan = fxgrow.Plan.from_json(json.dumps(data))
    before, code = {k: t.clone() for k, t in bits(traced).items()}, traced.code
    with pytest.raises(fxgrow.UsageError, match=said) as caught:
        fxgrow.apply(plan, traced, inplace=inplace)
    assert caught.value.kind is fxgrow.Kind.STALE_PLAN
    assert traced.code == code
    assert all(torch.equal(before[k], t) for k, t in bits(traced).items())


def test_a_plan_for_another_model_is_refused(data: Data) -> None:
    other = fxgrow.trace(ResNet(widths=(16, 24, 32, 64)).eval(), INPUTS)
    with pytest.raises(fxgrow.UsageError, match=r"but this model has|made for another model"):
        fxgrow.apply(fxgrow.Plan.from_json(json.dumps(data)), other)


def test_a_plan_with_a_function_of_the_users_cannot_be_written() -> None:
    traced = fxgrow.trace(ResNet().eval(), INPUTS)
    plan = fxgrow.plan_deepen(traced, "layer2", block=lambda n: nn.Conv2d(n, n, 3, padding=1), scheme="zero")
    with pytest.raises(fxgrow.UsageError, match="cannot be saved as JSON"):
        plan.to_json()


class Inverted(nn.Module):
    """Its dropout draws in evaluation mode only, and nobody reads what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two layers."""
        h = self.first(x)
        nn.functional.dropout(h, 0.5, not self.training)
        y: torch.Tensor = self.second(h)
        return y


@pytest.mark.parametrize("training", [True, False])
def test_a_plan_for_a_model_of_two_programs_is_proved_again_on_a_copy(training: bool) -> None:
    traced = fxgrow.trace(Inverted().double().train(training), (torch.randn(2, 4, dtype=torch.float64),))
    plan = fxgrow.plan_widen(traced, "first")
    other = copy.deepcopy(traced)  # which nobody has analysed
    assert identical(fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), other), fxgrow.apply(plan, traced))
