"""Plans that somebody has changed in one field: refused, or the function is what it was."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow

from .edited_plans import SUBJECTS, Where, changed, changes, outputs

TRIED = 40
"""Changes of each plan."""


Prepared = tuple[nn.Module, tuple[Tensor, ...], fx.GraphModule, fxgrow.Plan]


def prepared(name: str) -> Prepared:
    """A model, inputs, and a plan for it."""
    subject = SUBJECTS[name]
    torch.manual_seed(0)
    model = subject.model().double().eval()
    inputs = subject.inputs()
    traced = fxgrow.trace(model, inputs)
    return model, inputs, traced, subject.plan(traced)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_plan_that_was_changed_is_refused_or_harmless(name: str) -> None:
    case = prepared(name)
    every = list(changes(case[3]))
    drawn = random.Random(name).sample(every, min(TRIED, len(every)))
    refused = 0
    for where, value in drawn:
        refused += refused_or_harmless(case, where, value)
    assert refused > len(drawn) / 3


def refused_or_harmless(case: Prepared, where: Where, value: Any) -> bool:
    """Whether a change is refused; if it is not, the function must be the same."""
    model, inputs, traced, plan = case
    try:
        read = fxgrow.Plan.from_json(changed(plan, where, value).to_json())
        grown = fxgrow.apply(read, traced)
    except fxgrow.UsageError:
        return True
    if where[-1] == "noise":
        return False
    modes = (False,) if any(step.eval_only for step in plan.every()) else (False, True)
    for training in modes:
        before, after = outputs(model, inputs, training), outputs(grown, inputs, training)
        assert torch.allclose(before, after, rtol=1e-9, atol=1e-9), (where, value)
    return False
