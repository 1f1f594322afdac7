"""Whole networks in one plan: patterns, functions, factors, depth; the same as the steps in sequence."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.models_zoo import ZOO, ResNet

EXACT = 1e-10
IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    return fxgrow.trace(ResNet().double().eval(), (IMAGES,))


def same(a: nn.Module, b: nn.Module) -> bool:
    with torch.no_grad():
        x, y = a(IMAGES), b(IMAGES)
    return float((x - y).abs().max() / x.abs().max()) < EXACT


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def test_a_factor_widens_every_layer_that_can_grow_and_says_what_cannot(traced: fx.GraphModule) -> None:
    plan = fxgrow.plan_grow(traced, widen=1.5)
    grown = fxgrow.apply(plan, traced)
    assert same(traced, grown)
    assert plan.title.startswith("widen ")
    assert [note for note in plan.notes if note.endswith("its channels are an output of the model")]
    able = [s for s in fxgrow.inspect(traced).survey.sites if s.refusal is None]
    assert all(shapes(grown)[s.parameter][0] == round(1.5 * s.width) for s in able)


def test_patterns_names_and_widths(traced: fx.GraphModule) -> None:
    rules: dict[str, float | fxgrow.Width | None] = {
        "layer1.conv1": fxgrow.Width(to=21),
        "layer*.conv1": 2,
        "layer4.*": None,
    }
    grown = fxgrow.grow(traced, widen=rules)
    assert same(traced, grown)
    before, after = shapes(traced), shapes(grown)
    assert after["layer1.conv1.weight"][0] == 21
    assert after["layer2.conv1.weight"][0] == 2 * before["layer2.conv1.weight"][0]
    assert after["layer1.conv2.weight"][0] == before["layer1.conv2.weight"][0]


def test_a_function_of_name_and_width_decides(traced: fx.GraphModule) -> None:
    asked: dict[str, int] = {}

    def decide(name: str, width: int) -> float | None:
        asked[name] = width
        return 2.0 if name == "layer3.conv1" else None

    grown = fxgrow.grow(traced, widen=decide)
    assert same(traced, grown)
    assert asked["layer2.conv1"] == shapes(traced)["layer2.conv1.weight"][0]
    changed = {k for k, shape in shapes(grown).items() if shape != shapes(traced)[k]}
    assert changed
    assert all(k.startswith("layer3.") for k in changed)


def test_one_plan_is_the_same_as_its_steps_in_sequence(traced: fx.GraphModule) -> None:
    once = fxgrow.grow(traced, widen={"layer1.conv1": 1.5, "layer2.conv2": 2}, deepen={"layer3": "basic"})
    steps = fxgrow.widen(traced, "layer1.conv1", factor=1.5)
    steps = fxgrow.widen(steps, "layer2.conv2", factor=2)
    steps = fxgrow.deepen(steps, after="layer3", block="basic")
    assert shapes(once) == shapes(steps)
    assert [(n.op, str(n.target)) for n in once.graph.nodes] == [(n.op, str(n.target)) for n in steps.graph.nodes]
    assert same(once, steps)
    assert same(once, traced)


def test_depth_comes_behind_width_so_that_clones_are_as_wide(traced: fx.GraphModule) -> None:
    plan = fxgrow.plan_grow(traced, widen={"layer*.conv1": 2}, deepen=["layer2"])
    assert len(plan.then) == 1
    assert "then" in str(plan).splitlines()
    grown = fxgrow.apply(plan, traced)
    assert same(traced, grown)
    assert len(grown.meta["fxgrow"]) == 2
    certificate = fxgrow.verify(traced, grown)
    assert certificate.held, str(certificate)


def test_growth_in_place_of_several_steps_is_undone_as_a_whole(
    traced: fx.GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, code = {k: t.clone() for k, t in traced.state_dict().items()}, traced.code
    calls = []
    lint = fx.Graph.lint

    def fail(self: fx.Graph) -> None:
        calls.append(self)
        lint(self)
        if any("deeper" in node.name for node in self.nodes):
            raise MemoryError

    plan = fxgrow.plan_grow(traced, widen={"layer*.conv1": 2}, deepen=["layer2"])
    monkeypatch.setattr(fx.Graph, "lint", fail)
    with pytest.raises(MemoryError):
        fxgrow.apply(plan, traced, inplace=True)
    assert traced.code == code
    assert traced.state_dict().keys() == before.keys()
    assert all(torch.equal(before[k], t) for k, t in traced.state_dict().items())
    assert "fxgrow" not in traced.meta


def test_layers_that_share_channels_take_the_larger_factor_of_patterns(traced: fx.GraphModule) -> None:
    joins = {s.path: s.together for s in fxgrow.inspect(traced).survey.sites if s.together and s.refusal is None}
    first, others = next(iter(joins.items()))
    assert others
    grown = fxgrow.grow(traced, widen={f"{first}*": 1.5, "*": 2})
    assert same(traced, grown)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "neither widen= nor deepen= is given"),
        ({"widen": {"nolayer*": 2}}, "no layer is called like 'nolayer\\*'"),
        ({"widen": {"nolayer": 2}}, "no module, fx node or parameter is called 'nolayer'"),
        ({"widen": "layer1"}, "'layer1' is no factor"),
        ({"widen": {"layer1.conv1": True}}, "True is no factor"),
        ({"widen": {"*": None}}, "asks for no layer to grow"),
        ({"widen": 0.5}, "does not widen"),
        ({"widen": {"layer1.conv1": fxgrow.Width(to=4)}}, "is not wider"),
        ({"widen": 2, "scheme": "magic"}, "unknown scheme 'magic'"),
        ({"deepen": {"nolayer": "basic"}}, "nolayer"),
    ],
)
def test_bad_calls_say_what_is_wrong(traced: fx.GraphModule, options: dict[str, object], text: str) -> None:
    before, code = {k: t.clone() for k, t in traced.state_dict().items()}, traced.code
    with pytest.raises(fxgrow.FxgrowError, match=text):
        fxgrow.grow(traced, **options)  # type: ignore[arg-type]  # what users may write
    assert traced.code == code
    assert all(torch.equal(before[k], t) for k, t in traced.state_dict().items())


def test_two_names_of_one_volume_with_two_widths_contradict_each_other(traced: fx.GraphModule) -> None:
    site = next(s for s in fxgrow.inspect(traced).survey.sites if s.together and s.refusal is None)
    with pytest.raises(fxgrow.UsageError, match="shares channels with another layer"):
        fxgrow.grow(traced, widen={site.path: 2, site.together[0]: 1.5})


def test_a_name_that_is_to_stay_and_one_that_is_to_grow_contradict_each_other(traced: fx.GraphModule) -> None:
    site = next(s for s in fxgrow.inspect(traced).survey.sites if s.together and s.refusal is None)
    other = next(s.path for s in fxgrow.inspect(traced).survey.sites if s.node == site.together[0])
    with pytest.raises(fxgrow.UsageError, match=f"{site.path} shares channels with {other}, which is to stay as it is"):
        fxgrow.plan_grow(traced, widen={site.path: 2.0, other: None})


def test_what_is_named_in_full_must_grow(traced: fx.GraphModule) -> None:
    head = next(s for s in fxgrow.inspect(traced).survey.sites if s.refusal is not None)
    with pytest.raises(fxgrow.GrowthRefused, match="output"):
        fxgrow.grow(traced, widen={head.path: 2})


@pytest.mark.parametrize("scheme", ["auto", "r2r", "net2net", "zero", "morphism", "mean"])
@pytest.mark.parametrize(
    "name", ["resnet", "gpt", "lstm_tagger", "mobilenet", "pre_norm_encoder", "post_norm_encoder", "convnext"]
)
def test_everything_at_once_by_every_scheme(name: str, scheme: str) -> None:
    entry = ZOO[name]
    torch.manual_seed(0)
    model = entry.build().double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in entry.example_inputs())
    traced = fxgrow.trace(model, inputs)
    grown = fxgrow.grow(traced, widen=2, scheme=scheme)
    with torch.no_grad():
        x, y = model(*inputs), grown(*inputs)
    assert float((x - y).abs().max() / x.abs().max()) < EXACT


def test_a_torchvision_resnet_grows_in_both_directions() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_grow(traced, widen={"layer*.*.conv1": 1.5}, deepen={"layer3.1": "clone"})
    again = fxgrow.Plan.from_json(plan.to_json())
    one, other = fxgrow.apply(plan, traced), fxgrow.apply(again, fxgrow.trace(copy.deepcopy(model), (x,)))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    with torch.no_grad():
        a, b = model(x), one(x)
    assert float((a - b).abs().max() / a.abs().max()) < EXACT


class Causal(nn.Module):
    """Attention that makes its mask in each call, on the device that tensors are made on by default."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(5, 8) for _ in range(3))
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        hidden = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(hidden, float("-inf"))
        y: Tensor = self.head(torch.relu(self.inner(torch.relu(scores.softmax(-1) @ v))))
        return y


def test_models_that_make_tensors_grow_wider_and_deeper_in_one_plan() -> None:
    torch.manual_seed(0)
    model, x = Causal().double().eval(), torch.randn(2, 4, 5, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    grown = fxgrow.grow(traced, widen={"v": 2, "k": 2}, deepen="inner")
    for length in (4, 7):
        x = torch.randn(2, length, 5, dtype=torch.float64)
        torch.testing.assert_close(grown(x), model(x), rtol=0, atol=1e-12)
    assert fxgrow.verify(model, grown)
    read = fxgrow.Plan.from_json(fxgrow.plan_grow(traced, widen={"v": 2}, deepen="inner").to_json())
    assert fxgrow.verify(model, fxgrow.apply(read, traced))
