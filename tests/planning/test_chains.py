"""Random growths in a row, on models of many kinds: the function of the first is that of the last."""

from __future__ import annotations

import random
from typing import Literal

import pytest
import torch

import fxgrow
from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.coverage.subjects import settle
from fxgrow.verification.certificate import FLOAT64_BOUND

from ..proof.by_hand import effect

Skip = Literal["couple", "reshape"]
Grow = Literal["channels", "groups"]
GROWTHS = 6
MODELS = ("resnext", "mobilenet", "shufflenet_v2", "unet", "inception", "densenet")


@pytest.mark.parametrize("name", MODELS)
def test_six_random_growths_in_a_row(name: str) -> None:
    torch.manual_seed(0)
    inputs = tuple(x.double() for x in ZOO[name].example_inputs())
    start = fxgrow.trace(settle(ZOO[name].build().double(), inputs), inputs)
    sites = [site.path for site in fxgrow.inspect(start).widenable]
    choose, grown, refused = random.Random(name), start, set[fxgrow.Kind]()
    while len(grown.meta.get("fxgrow", ())) < GROWTHS:
        skip: Skip = choose.choice(("couple", "reshape"))
        grow: Grow = choose.choice(("channels", "groups"))
        factor, seed = choose.uniform(1.01, 1.4), choose.randrange(1000)
        try:
            wider = fxgrow.widen(grown, choose.choice(sites), factor=factor, skip=skip, grow=grow, seed=seed)
        except fxgrow.GrowthRefused as error:  # whole groups, or one volume alone, may be refused; coupling is not
            assert (skip, grow) != ("couple", "channels")
            refused.add(error.kind)
            continue
        assert sum(p.numel() for p in wider.parameters()) > sum(p.numel() for p in grown.parameters())
        grown = wider
    for training in (False, True):
        found = effect(start.train(training), grown.train(training), inputs)
        assert isinstance(found, float)
        assert found < FLOAT64_BOUND
    assert refused <= {fxgrow.Kind.NO_PROOF, fxgrow.Kind.NON_ALIGNED}
