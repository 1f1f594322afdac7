"""`fxgrow.plan` composes passes, and `widen`, `deepen` and `grow` are short forms of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.models_zoo import ResNet
from fxgrow.passes import CloneBlock, Factorize, IdentityLayer, InsertBlock, Pass, Widen

IMAGES = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return ResNet().double().eval()


@pytest.fixture
def traced(model: nn.Module) -> fx.GraphModule:
    return fxgrow.trace(model, (IMAGES,))


def same(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


ROWS: dict[str, tuple[Pass, ...]] = {
    "a width": (Widen("layer2.conv1", to=40),),
    "a width, then a block": (Widen("layer2.conv1", factor=1.5), CloneBlock(after="layer3")),
    "a block, then its width": (InsertBlock(after="layer1"), Widen("layer1_deeper1.conv1", by=4)),
    "all of them": (
        Widen(["layer1.conv1", "layer2.conv1"]),
        InsertBlock(after="layer1", block="bottleneck"),
        CloneBlock(after="layer3", scheme="zero"),
        IdentityLayer(after="layer2", norm="none"),
        Factorize("layer3.conv1"),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_passes_are_planned_one_after_the_other(name: str, model: nn.Module, traced: fx.GraphModule) -> None:
    plan = fxgrow.plan(traced, *ROWS[name])
    assert len(list(plan.every())) == len(ROWS[name])
    larger = fxgrow.apply(plan, traced)
    torch.testing.assert_close(larger(IMAGES), model(IMAGES), rtol=0, atol=1e-10)
    again = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), fxgrow.trace(model, (IMAGES,)))
    assert same(larger, again)
    assert fxgrow.verify(model, larger)


def test_verbs_are_short_forms(traced: fx.GraphModule) -> None:
    for verb, step in (
        (
            fxgrow.plan_widen(traced, "layer2.conv1", by=8, scheme="net2net"),
            Widen("layer2.conv1", by=8, scheme="net2net"),
        ),
        (fxgrow.plan_deepen(traced, "layer2", count=2), InsertBlock(after="layer2", count=2)),
        (fxgrow.plan_deepen(traced, "layer2", block="clone"), CloneBlock(after="layer2")),
        (fxgrow.plan_deepen(traced, "layer2", scheme="net2net"), IdentityLayer(after="layer2")),
        (fxgrow.plan_deepen(traced, "layer2.conv1", scheme="morphism"), Factorize("layer2.conv1")),
    ):
        assert fxgrow.plan(traced, step) == verb
    both = fxgrow.plan_grow(traced, widen={"layer2.conv1": 1.5}, deepen={"layer3": "clone"}, scheme="r2r")
    steps = Widen((), others=(("layer2.conv1", fxgrow.Width(factor=1.5)),), scheme="r2r"), CloneBlock(after="layer3")
    assert fxgrow.plan(traced, *steps) == both


@pytest.mark.parametrize("given", [(), (Widen,), ("layer2.conv1",)])
def test_what_is_not_a_pass_is_refused(given: tuple[object, ...], traced: fx.GraphModule) -> None:
    with pytest.raises(fxgrow.UsageError) as error:
        fxgrow.plan(traced, *given)  # type: ignore[arg-type]  # wrongly
    assert error.value.kind is fxgrow.Kind.BAD_OPTION
    assert error.value.refusal.hint


class Two(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.relu(self.a(x)))
        return out


def test_names_may_come_from_an_iterator() -> None:
    traced = fxgrow.trace(Two().double(), (torch.randn(3, 4).double(),))
    plan = fxgrow.plan_deepen(traced, iter(["relu"]), before=iter(["a"]), block="mlp")
    assert len(plan.inserts) == 2
