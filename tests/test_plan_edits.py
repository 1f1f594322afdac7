"""Plans that somebody has changed in one field: refused, or the function is what it was."""

from __future__ import annotations

import random

import pytest
import torch

import fxgrow
from fxgrow.rewrite import apply as write

from .edited_plans import SUBJECTS, changed, changes, outputs

TRIED = 60
"""Changes of each plan."""


def prepared(name: str):
    subject = SUBJECTS[name]
    torch.manual_seed(0)
    model = subject.model().double().eval()
    inputs = subject.inputs()
    traced = fxgrow.trace(model, inputs)
    return model, inputs, traced, subject.plan(traced)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_plan_that_was_changed_is_refused_or_harmless(name: str) -> None:
    model, inputs, traced, plan = prepared(name)
    every = list(changes(plan))
    drawn = random.Random(name).sample(every, min(TRIED, len(every)))
    refused = 0
    for where, value in drawn:
        refused += harmless_or_refused(model, inputs, traced, plan, where, value)
    assert refused > len(drawn) / 3


def harmless_or_refused(model, inputs, traced, plan, where, value) -> bool:
    """Whether a change is refused; if it is not, the function must be the same."""
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
