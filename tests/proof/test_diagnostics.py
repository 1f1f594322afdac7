"""Diagnostics of pairs: followed through growths, and recorded while they part."""

from __future__ import annotations

import copy
from math import isnan

import pytest
import torch
from torch import fx, nn

import fxgrow
from fxgrow.diagnostics import Recorder, diversity, gradient_norms, pairs_of, separation
from fxgrow.models_zoo import ZOO

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def resnet(name: str = "resnet") -> fx.GraphModule:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return fxgrow.trace(ZOO[name].build().train(), ZOO[name].example_inputs())


@pytest.fixture(scope="module")
def wider() -> fx.GraphModule:
    """layer2.conv1, 32 -> 40 channels: four pairs."""
    return fxgrow.widen(resnet(), "layer2.conv1", by=8)


def trained(gm: fx.GraphModule, steps: int = 1) -> fx.GraphModule:
    """Take steps down the sum of squares."""
    optimizer = torch.optim.SGD(gm.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        gm(X).square().sum().backward()
        optimizer.step()
    return gm


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_of_a_growth(wider: fx.GraphModule) -> None:
    found = {p.parameter: p for p in pairs_of(wider)}
    assert {name: (p.axis, p.role) for name, p in found.items()} == {
        "layer2.conv1.weight": (0, "producer"),
        "layer2.bn1.weight": (0, "producer"),
        "layer2.bn1.bias": (0, "producer"),
        "layer2.conv2.weight": (1, "consumer"),
    }
    assert {p.left for p in found.values()} == {(32, 34, 36, 38)}
    assert {p.right for p in found.values()} == {(33, 35, 37, 39)}


@pytest.mark.parametrize("name", ["resnet", "resnext", "shufflenet_v2", "densenet", "generator", "gated_conv"])
def test_halves_are_equal_right_after_growths_and_pairs_of_all_of_them_are_followed(name: str) -> None:
    gm = resnet(name)
    sites = [site.path for site in fxgrow.inspect(gm).widenable]
    counts = []
    for site in (sites[0], sites[-1], sites[0], sites[len(sites) // 2]):
        gm = fxgrow.widen(gm, site, factor=1.5)
        counts.append(sum(len(p.left) for p in pairs_of(gm)))
        assert all(s.separated == 0 for s in separation(gm))
        assert all(d == 0 for s in separation(gm) for d in s.relative)
    assert counts == sorted(set(counts))


def test_pairs_of_an_earlier_growth_lie_where_a_later_one_moved_them() -> None:
    gm = fxgrow.widen(resnet("resnext"), "layer1.conv2", factor=2)  # channels of groups: (g c)
    before = {p.parameter: p for p in pairs_of(gm)}
    again = {p.parameter: p for p in reversed(pairs_of(fxgrow.widen(gm, "layer1.conv2", factor=2)))}  # the first growth
    moved = [name for name, p in before.items() if again[name].left != p.left]
    assert moved
    assert all(len(again[name].left) == len(before[name].left) for name in before)


def test_copies_and_their_originals_are_pairs_too_and_do_not_part() -> None:
    gm = fxgrow.widen(resnet().double(), "layer2.conv1", by=8, scheme="net2net")
    found = {p.parameter: p for p in pairs_of(gm)}
    assert {p.state for p in found.values() if p.role == "producer"} == {"copy"}
    assert (found["layer2.conv2.weight"].state, found["layer2.conv2.weight"].role) == ("split", "consumer")
    assert found["layer2.conv1.weight"].right == tuple(range(32, 40))
    assert max(found["layer2.conv1.weight"].left) < 32
    recorder, optimizer = Recorder(gm), torch.optim.SGD(gm.parameters(), lr=0.01)
    for _ in range(4):
        recorder.record()
        optimizer.zero_grad()
        gm(X.double()).square().sum().backward()
        optimizer.step()
    assert max(d for s in recorder.course.separations for d in s.relative) < 1e-12
    (weight,) = diversity(gm).weights
    assert weight.nearest_new == pytest.approx(1)


def test_a_block_that_was_inserted_is_new_and_has_pairs() -> None:
    gm = fxgrow.deepen(resnet(), after="layer1")
    blocks = {name for name, _ in gm.named_parameters()} - {name for name, _ in resnet().named_parameters()}
    found = pairs_of(gm)
    assert found
    assert {p.parameter for p in found} <= blocks
    assert all(s.separated == 0 for s in separation(gm))
    gm(X).square().sum().backward()
    norms = gradient_norms(gm, block=lambda name: "inserted" if name in blocks else "old")
    assert norms.of("inserted").norm > 0
    assert norms.of("inserted").new == pytest.approx(norms.of("inserted").norm)
    assert norms.of("old").new == 0


@pytest.mark.parametrize("of", [pairs_of, separation, Recorder, diversity])
def test_a_model_that_was_not_grown_has_no_pairs(of: type[Recorder]) -> None:
    for model in (resnet(), nn.Linear(2, 2)):
        with pytest.raises(fxgrow.UsageError, match=r"FXG006 .* has no record of a growth"):
            of(model)  # type: ignore[arg-type]  # a plain module is what is being refused


# -- the recorder -----------------------------------------------------------------------------------------------------


def test_the_recorder_sees_halves_part_and_touches_nothing(wider: fx.GraphModule) -> None:
    gm = copy.deepcopy(wider)
    recorder = Recorder(gm)
    assert str(recorder.course) == "nothing recorded yet"
    state, random = {k: v.clone() for k, v in gm.state_dict().items()}, torch.get_rng_state()
    recorder.record()
    assert all(torch.equal(v, state[k]) for k, v in gm.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    for _ in range(2):
        trained(gm)
        recorder.record()
    course = recorder.course
    assert course.steps == (0, 1, 2)
    weights = course.of("layer2.conv1.weight")
    assert [s.step for s in weights] == [0, 1, 2]
    assert [s.separated for s in weights] == [0, 4, 4]
    assert weights[0].cosines == pytest.approx([1.0] * 4)
    assert min(weights[2].distances) > min(weights[1].distances) > 0
    assert [s.pairs.parameter for s in course.last] == [p.parameter for p in pairs_of(gm)]
    lines = str(course).splitlines()
    assert lines[0] == "halves at step 2, the last of 3 recorded"
    assert lines[2].split()[:4] == ["layer2.conv1.weight", "producer", "4", "4"]
    assert max(map(len, lines)) <= 120


def test_distances_and_cosines_are_those_of_the_halves(wider: fx.GraphModule) -> None:
    gm = trained(copy.deepcopy(wider))
    found = {s.pairs.parameter: s for s in separation(gm, step=7)}
    weight = gm.get_parameter("layer2.conv1.weight").detach().double()
    a, b = weight[34].flatten(), weight[35].flatten()
    s = found["layer2.conv1.weight"]
    assert s.step == 7
    assert s.distances[1] == pytest.approx(float((a - b).norm()))
    assert s.relative[1] == pytest.approx(float((a - b).norm() / ((a.norm() + b.norm()) / 2)))
    assert s.cosines[1] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)))
    weight = gm.get_parameter("layer2.conv2.weight").detach().double()
    c, d = weight[:, 34].flatten(), weight[:, 35].flatten()
    assert found["layer2.conv2.weight"].distances[1] == pytest.approx(float((c + d).norm()))
    assert found["layer2.conv2.weight"].cosines[1] == pytest.approx(-float(torch.cosine_similarity(c, d, dim=0)))
    assert all(isnan(x) for x in found["layer2.bn1.weight"].cosines)  # one number has no direction


def test_a_model_that_grows_between_two_steps_is_followed(wider: fx.GraphModule) -> None:
    gm = copy.deepcopy(wider)
    recorder = Recorder(gm)
    recorder.record()
    fxgrow.widen(gm, "layer3.conv1", by=2, inplace=True)
    recorder.record()
    assert {s.pairs.parameter for s in recorder.course.last} >= {"layer2.conv1.weight", "layer3.conv1.weight"}
