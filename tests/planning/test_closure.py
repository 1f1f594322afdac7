"""Widening is closed: the result of a widening can be widened, again and again, and nothing but widths accumulates."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision.models import resnet18

import fxgrow
from fxgrow.functional import adapt_skip
from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.coverage.subjects import settle
from fxgrow.verification.certificate import FLOAT64_BOUND

from ..proof.by_hand import effect

Skip = Literal["couple", "reshape"]


@dataclass(frozen=True)
class Start:
    """A traced model in float64, with inputs for it."""

    gm: fx.GraphModule
    inputs: tuple[Tensor, ...]

    def difference(self, grown: nn.Module, *, training: bool = False) -> float:
        """How far the outputs of a grown model are off, relative to the largest."""
        a, b = (copy.deepcopy(m).train() if training else m for m in (self.gm, grown))
        found = effect(a, b, self.inputs)
        assert isinstance(found, float)
        return found

    def check(self, grown: fx.GraphModule) -> None:
        """The function is the same, and nothing but sizes and skip adapters distinguishes the graphs."""
        assert self.difference(grown) < FLOAT64_BOUND
        nodes = list(grown.graph.nodes)
        assert not [n for n in nodes if not n.users and n.op != "output"]
        assert len(nodes) == len(self.gm.graph.nodes) + len(adapters(grown))
        assert len(adapters(grown)) <= len(fxgrow.inspect(self.gm).joins)
        assert classes(grown) == classes(self.gm)
        assert grown.state_dict().keys() == self.gm.state_dict().keys()


def adapters(gm: fx.GraphModule) -> list[fx.Node]:
    """Nodes that adapt a skip path."""
    return [n for n in gm.graph.nodes if n.target is adapt_skip or str(n.target).startswith("adapt_skip_")]


def classes(gm: fx.GraphModule) -> dict[str, type]:
    """The class of every module but the root, which has one of its own."""
    return {path: type(module) for path, module in gm.named_modules() if path}


def parameters(gm: nn.Module) -> int:
    """How many numbers a model has."""
    return sum(p.numel() for p in gm.parameters())


@pytest.fixture(scope="module")
def torchvision_resnet() -> Start:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 3, 32, 32, dtype=torch.float64),)
    return Start(fxgrow.trace(settle(resnet18().double(), inputs), inputs), inputs)


@pytest.fixture(scope="module")
def zoo_resnet() -> Start:
    torch.manual_seed(0)
    inputs = tuple(x.double() for x in ZOO["resnet"].example_inputs())
    return Start(fxgrow.trace(settle(ZOO["resnet"].build().double(), inputs), inputs), inputs)


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_random_widenings_in_a_row(seed: int, torchvision_resnet: Start) -> None:
    start, choose = torchvision_resnet, random.Random(seed)
    layers = [site.path for site in fxgrow.inspect(start.gm).widenable]
    assert len(layers) == 20  # every convolution of a resnet18
    grown, skips = start.gm, set()
    for step in range(10):
        skip: Skip = choose.choice(("couple", "reshape"))
        wider = fxgrow.widen(grown, choose.choice(layers), by=choose.choice((1, 2, 3, 4)), skip=skip, seed=step)
        assert parameters(wider) > parameters(grown)
        grown = wider
        start.check(grown)
        skips.add(skip)
    assert skips == {"couple", "reshape"}
    assert adapters(grown)
    assert len(grown.meta["fxgrow"]) == 10
    assert start.difference(grown, training=True) < FLOAT64_BOUND


WIDENINGS: tuple[tuple[str, Skip], ...] = (
    ("layer3.conv2", "reshape"),  # an adapter comes where the skip enters layer3
    ("layer3.conv2", "reshape"),  # it is made wider
    ("layer2.conv2", "reshape"),  # it reads new halves; another one enters layer2
    ("layer3.conv2", "couple"),  # layer3 and what follows it
    ("layer2.downsample.0", "couple"),  # the second one reads new halves
    ("conv1", "couple"),  # the stream of layer1
    ("layer1.conv2", "reshape"),  # a third one
    ("conv1", "reshape"),
)


@pytest.mark.parametrize("adapter", ["pad", "conv"])
def test_widening_again_updates_an_adapter_and_stacks_none(adapter: Literal["pad", "conv"], zoo_resnet: Start) -> None:
    start, grown = zoo_resnet, zoo_resnet.gm
    counts = []
    for layer, skip in WIDENINGS:
        grown = fxgrow.widen(grown, layer, by=4, skip=skip, adapter=adapter)
        assert start.difference(grown) < FLOAT64_BOUND
        counts.append(len(adapters(grown)))
        assert not [n for n in grown.graph.nodes if not n.users and n.op != "output"]
        assert all(not set(n.all_input_nodes) & set(adapters(grown)) for n in adapters(grown))
    assert counts == [1, 1, 2, 2, 2, 2, 3, 3]
    assert len({next(iter(n.users)) for n in adapters(grown)}) == 3  # each before a join of its own
    assert grown.get_submodule("layer3.conv2").out_channels == 32 + 12
    assert start.difference(grown, training=True) < FLOAT64_BOUND


class InputJoin(nn.Module):
    """The skip path is an input: a learnable adapter on it is as deep as the main path."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z: Tensor = self.head(x + self.main(y))
        return z


@pytest.mark.parametrize("adapter", ["pad", "conv"])
def test_a_path_that_is_adapted_stays_the_skip_path(adapter: Literal["pad", "conv"]) -> None:
    inputs = (torch.randn(2, 4, 3, 3).double(), torch.randn(2, 1, 3, 3).double())
    start = Start(fxgrow.trace(InputJoin().double(), inputs), inputs)
    grown = start.gm
    for _ in range(3):
        grown = fxgrow.widen(grown, "main", by=1, skip="reshape", adapter=adapter)
    assert len(adapters(grown)) == 1
    assert grown.get_submodule("head").in_channels == 7
    assert start.difference(grown) < FLOAT64_BOUND


def test_coupling_adds_no_node(zoo_resnet: Start) -> None:
    grown = zoo_resnet.gm
    for layer in ("conv1", "layer2.conv1", "layer4.conv2", "conv1"):
        grown = fxgrow.widen(grown, layer, by=3)
        zoo_resnet.check(grown)
    assert [str(n) for n in grown.graph.nodes] == [str(n) for n in zoo_resnet.gm.graph.nodes]
    assert grown.code == zoo_resnet.gm.code


@pytest.mark.parametrize("name", ["shufflenet", "resnext", "densenet", "generator", "gated_conv", "looped_conv"])
def test_groups_sums_and_loops_widen_again_too(name: str) -> None:
    torch.manual_seed(0)
    inputs = tuple(x.double() for x in ZOO[name].example_inputs())
    start = Start(fxgrow.trace(settle(ZOO[name].build().double(), inputs), inputs), inputs)
    layers = [site.path for site in fxgrow.inspect(start.gm).widenable]
    grown = start.gm
    for layer in (layers[0], layers[-1], layers[0]):
        grown = fxgrow.widen(grown, layer, factor=1.25)
        start.check(grown)


def test_several_nodes_in_one_call_make_one_plan(zoo_resnet: Start) -> None:
    gm, layers = zoo_resnet.gm, ["layer1.conv1", "layer3.conv2", "layer4.conv1", "layer2.conv2"]
    plan = fxgrow.plan_widen(gm, layers, by=4)
    assert len(plan.growths) == sum(len(fxgrow.plan_widen(gm, layer, by=4).growths) for layer in layers[:3])
    assert plan.title == (  # layer2.conv2 and layer3.conv2 are one stream, and named twice
        "widen layer1.conv1, layer3.conv2, layer4.conv1, layer2.conv2: 16 -> 20, 32 -> 36, 64 -> 68, 32 -> 36 channels"
    )
    grown = fxgrow.apply(plan, gm)
    assert grown.meta["fxgrow"] == (plan,)
    zoo_resnet.check(grown)
