"""What users import, print and pass on."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import fx

import fxgrow
from fxgrow.models_zoo import ResNet
from fxgrow.passes import InsertBlock, Widen


@pytest.fixture
def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    return fxgrow.trace(ResNet().double().eval(), (torch.randn(2, 1, 8, 8).double(),))


def test_the_version_is_that_of_the_package() -> None:
    assert re.match(r"\d+\.\d+|0\+unknown", fxgrow.__version__)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        fxgrow.nothing_of_this_name  # noqa: B018  # asked for on purpose


def test_every_public_name_is_there() -> None:
    assert all(hasattr(fxgrow, name) for name in fxgrow.__all__)
    assert len(fxgrow.__all__) == len(set(fxgrow.__all__))


def test_a_repr_is_one_short_line(traced: fx.GraphModule) -> None:
    found = fxgrow.inspect(traced)
    plan = fxgrow.plan(traced, Widen("layer2.conv1"), InsertBlock(after="layer2"))
    certificate = fxgrow.verify(traced, fxgrow.apply(plan, traced))
    assert (certificate.ok, certificate.held, certificate.within_noise) == (True, True, False)
    for thing in (found, found.sites[0], found.refused[0], plan, certificate):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 200
    assert "layer2.conv1" in repr(plan)


def test_a_site_says_what_it_is(traced: fx.GraphModule) -> None:
    site = next(s for s in fxgrow.inspect(traced).sites if s.path == "layer2.conv1")
    module: Any = traced.get_submodule("layer2.conv1")
    assert (site.kind, site.width) == ("Conv2d", module.out_channels)
    assert site.parameters == sum(p.numel() for p in module.parameters())
    images, size = 2, next(n for n in traced.graph.nodes if n.target == "layer2.conv1")
    positions = fxgrow.analyse(traced).program.results[size.name].shape[2:]
    assert site.flops == 2 * images * math.prod(positions) * module.weight.numel()


def test_a_site_is_taken_wherever_a_layer_is_named(traced: fx.GraphModule) -> None:
    sites = {s.path: s for s in fxgrow.inspect(traced).sites}
    site = sites["layer2.conv1"]
    assert fxgrow.plan_widen(traced, site) == fxgrow.plan_widen(traced, "layer2.conv1")
    some = [site, sites["layer3.conv1"]]
    assert fxgrow.plan_widen(traced, some) == fxgrow.plan_widen(traced, ["layer2.conv1", "layer3.conv1"])
    assert fxgrow.plan(traced, Widen(site)) == fxgrow.plan_widen(traced, "layer2.conv1")
    assert fxgrow.plan_deepen(traced, site) == fxgrow.plan_deepen(traced, "layer2.conv1")
    assert fxgrow.plan_grow(traced, widen={site: 1.5}) == fxgrow.plan_grow(traced, widen={"layer2.conv1": 1.5})
