"""Every producer of every model of the catalogue: widened and the same function, or refused by name."""

from __future__ import annotations

import pytest

from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.coverage import TORCHVISION, rows
from fxgrow.verify.certificate import FLOAT64_BOUND

REFUSED_IN_ZOO = {
    "post_norm_encoder": {"OUTPUT", "NORM"},  # a stream that is normalised after each join has no mean of its writers
    "convnext": {"OUTPUT", "NORM"},  # the mean of the stream would have to pass scales and depthwise windows
}
"""Kinds of refusal by model; all others lose no more than their interface."""
REFUSED_IN_TORCHVISION = {"shufflenet_v2_x1_0": {"OUTPUT", "NON_ALIGNED"}}
"""Kinds of refusal by model; all others lose their output layer only."""


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if not entry.refuses])
def test_zoo_model_grows_everywhere_but_at_its_interface(name: str) -> None:
    (row,) = rows([name])
    assert not row.broken
    assert row.grown + sum(row.refused.values()) == row.sites
    known = REFUSED_IN_ZOO.get(name)
    assert set(row.refused) <= {"OUTPUT", "INPUT"} if known is None else set(row.refused) == known
    assert row.grown >= 1
    assert row.eval_error <= FLOAT64_BOUND
    assert row.train_error is not None
    assert row.train_error <= FLOAT64_BOUND


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.refuses])
def test_refusal_models_are_refused_and_nothing_else_breaks(name: str) -> None:
    (row,) = rows([name])
    assert not row.broken
    assert row.refused


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_model_grows_everywhere_at_once(name: str) -> None:
    (row,) = rows([f"torchvision.{name}"], each=False)
    assert not row.broken
    assert row.grown + sum(row.refused.values()) == row.sites
    assert set(row.refused) == REFUSED_IN_TORCHVISION.get(name, {"OUTPUT"})
    assert row.eval_error <= FLOAT64_BOUND
