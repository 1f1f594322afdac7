"""Invalid sizes are refused in Python as in the command, before anything is made of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxgrow
from fxgrow.rewrite import memory_limits as limits

HUGE: tuple[Any, ...] = (10**9, 10**12, 2**70)
NO_NUMBERS: tuple[Any, ...] = (True, 2.5, "8", float("nan"), float("inf"), np.int64(16), -3, 0, [8], torch.tensor(8))


@cache
def model() -> Any:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    return fxgrow.trace(net.eval(), (torch.zeros(2, 3, 9, 9),))


@pytest.fixture(autouse=True)
def nothing_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of one megabyte, on which nothing large can be tried."""
    monkeypatch.setattr(limits, "memory", lambda: 2**20)


def refused(verb: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(fxgrow.UsageError) as error:
        verb(*args, **options)
    assert error.value.refusal.hint
    return error.value.refusal.what


@pytest.mark.parametrize("value", [*HUGE, *NO_NUMBERS], ids=repr)
@pytest.mark.parametrize("name", ["to", "by", "round_to"])
def test_widths(name: str, value: Any) -> None:
    for verb in (fxgrow.widen, fxgrow.plan_widen):
        refused(verb, model(), "0", **{name: value})


@pytest.mark.parametrize("value", [*HUGE, True, "2", float("nan"), float("inf"), -1.5, 0, 1, [2]], ids=repr)
def test_factors(value: Any) -> None:
    refused(fxgrow.widen, model(), "0", factor=value)
    if value != 1 or isinstance(value, bool):  # a factor of 1 leaves a layer as it is
        refused(fxgrow.grow, model(), widen=value)
        refused(fxgrow.grow, model(), widen={"0": value})


@pytest.mark.parametrize("value", [*HUGE, *NO_NUMBERS], ids=repr)
@pytest.mark.parametrize("name", ["hidden", "kernel", "count"])
@pytest.mark.parametrize("scheme", ["r2r", "zero", "morphism"])
def test_blocks(scheme: str, name: str, value: Any) -> None:
    refused(fxgrow.deepen, model(), "3", scheme=scheme, **{name: value})
    refused(fxgrow.plan_deepen, model(), "3", scheme=scheme, **{name: value})
    refused(fxgrow.grow, model(), deepen={"3": {"scheme": scheme, name: value}})


@pytest.mark.parametrize("value", [2**70, *NO_NUMBERS[:-3], [8]], ids=repr)
def test_seeds(value: Any) -> None:
    if value == 0 or value == -3:
        return
    m = model()
    refused(fxgrow.widen, m, "0", seed=value)
    refused(fxgrow.deepen, m, "3", seed=value)
    refused(fxgrow.verify, m, m, seed=value)


def test_a_flag_is_a_flag() -> None:
    assert "causal=" in refused(fxgrow.deepen, model(), "3", causal="yes")


def test_what_the_machine_cannot_hold_is_said_before_it_is_made() -> None:
    for growth in (
        lambda m: fxgrow.widen(m, "0", factor=1024),
        lambda m: fxgrow.deepen(m, "3", hidden=8000),
        lambda m: fxgrow.grow(m, widen={"0": 1024}),
    ):
        assert "this machine has" in refused(growth, model())


def test_what_can_be_meant_is_made() -> None:
    wide: Any = fxgrow.widen(model(), "0", to=16)
    deep: Any = fxgrow.deepen(model(), "3", hidden=16, kernel=5)
    assert wide.get_submodule("0").out_channels == 16
    assert deep.get_submodule("3_deeper1.conv1").kernel_size == (5, 5)
