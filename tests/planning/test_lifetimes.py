"""Nothing that fxgrow keeps of a model keeps the model: it is freed when its user lets go of it."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import fxgrow
from fxgrow.models_zoo.models.catalogue import ZOO

MODELS = ("mlp", "resnet_groupnorm", "post_norm_encoder", "refuse_norm")
"""Each has layers that cannot grow: those whose units are outputs of the model, or read by a norm."""


def use(name: str) -> list[weakref.ref[nn.Module]]:
    """Do what fxgrow can do with a model; weak references to the model, its trace and what is grown from it."""
    torch.manual_seed(0)
    model = ZOO[name].build().eval()
    traced = fxgrow.trace(model, ZOO[name].example_inputs())
    found = fxgrow.inspect(traced)
    assert found.refused, "a refusal is what a model must not be kept by"
    with pytest.raises(fxgrow.GrowthRefused):
        fxgrow.plan_widen(traced, found.refused[-1].path)
    made: list[nn.Module] = [model, traced]
    if found.widenable:
        fxgrow.plan_grow(traced, widen=1.5)
        grown = fxgrow.grow(traced, widen=2.0)
        fxgrow.verify(traced, grown)
        fxgrow.bisect(traced, grown)
        made.append(grown)
    return [weakref.ref(module) for module in made]


def alive() -> Counter[type[Any]]:
    """How many objects of fxgrow's classes and of torch's modules are alive, by class."""
    gc.collect()
    return Counter(type(x) for x in gc.get_objects() if str(type(x).__module__).startswith(("fxgrow.", "torch.nn.")))


@pytest.mark.parametrize("name", MODELS)
def test_models_are_freed(name: str) -> None:
    references = use(name)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_the_same_work_done_again_leaves_no_more_objects() -> None:
    use("mlp")
    use("mlp")
    before = alive()
    use("mlp")
    assert alive() - before == Counter()
