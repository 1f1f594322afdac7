"""Plans that somebody has changed in one field: refused, or the function is what it was."""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.plan_validation import remembered
from fxgrow.plans import Leaf
from fxgrow.rewrite import apply as write

from .edited_plans import SUBJECTS, Where, changed, changes, outputs, rows
from .faults import OutOfMemory

TRIED = 40
"""Changes of each plan."""
REPEATED = 20_000
"""Times that an entry of a plan is repeated; more than a model of these has calls, and than a growth of it makes."""


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


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_plan_that_nobody_changed_makes_the_same_bits_and_says_the_same(name: str) -> None:
    _, _, traced, plan = prepared(name)
    other = prepared(name)[2]
    read = fxgrow.Plan.from_json(plan.to_json())
    assert remembered(plan, traced)
    assert not remembered(read, other)
    want, have = fxgrow.apply(plan, traced), fxgrow.apply(read, other)
    assert have.meta["fxgrow"] == want.meta["fxgrow"]
    assert all(torch.equal(a, b) for a, b in zip(want.state_dict().values(), have.state_dict().values(), strict=True))


def test_a_lie_in_the_proof_does_not_reach_the_certificate() -> None:
    _, _, traced, plan = prepared("convolution")
    grown = fxgrow.apply(fxgrow.Plan.from_json(replace(plan, proof=("believe me",)).to_json()), traced)
    assert grown.meta["fxgrow"][0].proof == plan.proof


def test_the_first_difference_is_named() -> None:
    _, _, traced, plan = prepared("convolution")
    scaled = replace(plan, tensors=(*plan.tensors[:-1], replace(plan.tensors[-1], scale=2.0)))
    with pytest.raises(fxgrow.UsageError) as error:
        fxgrow.apply(fxgrow.Plan.from_json(scaled.to_json()), traced)
    assert error.value.kind is fxgrow.Kind.STALE_PLAN
    assert "3.weight: scale 2.0, expected 1.0" in error.value.refusal.what
    assert error.value.refusal.hint


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many functions are called, Python's and others, but for those of the garbage collector."""
    count, known, collects = [0], sys.getprofile(), gc.isenabled()

    def note(*_: object) -> None:
        count[0] += 1

    gc.disable()  # it calls what other tests have left to be called
    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(known)
        if collects:
            gc.enable()


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_plan_that_repeats_an_entry_is_refused_before_anything_is_done_for_each(name: str) -> None:
    _, _, traced, plan = prepared(name)
    kinds = {tuple(key for key in where if isinstance(key, str)): (where, row) for where, row in rows(plan)}
    assert len(kinds) > 5
    for where, row in kinds.values():
        long = changed(plan, where, (*row, *[row[-1]] * REPEATED))
        with (
            OutOfMemory(1, MemoryError, late=False),  # no operation on tensors
            counted_calls() as calls,
            pytest.raises(fxgrow.UsageError) as error,
        ):
            fxgrow.apply(long, traced)
        assert error.value.kind is fxgrow.Kind.STALE_PLAN, where
        assert calls[0] < REPEATED, where


def test_a_plan_of_a_file_names_what_it_repeats() -> None:
    _, _, traced, plan = prepared("statistics")
    data = json.loads(plan.to_json())
    edit = next(edit for edit in data["plan"]["tensors"] if edit["padding"])
    edit["padding"] *= 500_000
    with pytest.raises(fxgrow.UsageError, match=r"the plan lists 500,000 rows of padding of table\.weight"):
        fxgrow.apply(fxgrow.Plan.from_json(json.dumps(data)), traced)


def test_the_writer_alone_believes_a_plan() -> None:
    """The oracle must be able to fail: without the second proof an edited state changes the function."""
    model, inputs, traced, plan = prepared("convolution")
    edit = next(e for e in plan.tensors if e.names[0] == "3.weight")
    leaf = edit.axes[0].layout
    assert isinstance(leaf, Leaf)
    growth = replace(edit.axes[0], layout=replace(leaf, state="even"))
    tensors = tuple(replace(e, axes=(growth,)) if e is edit else e for e in plan.tensors)
    wrong = write(replace(plan, tensors=tensors), traced)
    assert not torch.allclose(outputs(model, inputs, False), outputs(wrong, inputs, False), atol=1e-3)
    with pytest.raises(fxgrow.UsageError, match="do not preserve the function"):
        fxgrow.apply(replace(plan, tensors=tensors), traced)
