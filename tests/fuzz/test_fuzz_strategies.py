"""The Hypothesis strategies: what they draw, what they refuse, and how they shrink."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from fxgrow.errors import Kind, UsageError
from fxgrow.rules import RULES
from fxgrow.testing.fuzzing import draw
from fxgrow.testing.fuzzing.draw import CORES, PLAIN
from fxgrow.testing.fuzzing.growths import Growth
from fxgrow.testing.fuzzing.laws import watch
from fxgrow.testing.fuzzing.pairs import Subject, subject
from fxgrow.testing.fuzzing.promises import LawBroken
from fxgrow.testing.fuzzing.sketch import Input, Sketch, step
from fxgrow.testing.strategies import graph_modules, growths, sequences, sketches

from .test_fuzz import FAULTS, WITHIN

FEW = settings(
    max_examples=settings().max_examples // 3,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
SAME = settings(
    max_examples=400,
    database=None,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
"""The same search whenever it runs."""
FIRST = settings(SAME, phases=(Phase.generate,))
"""The first one that is found, as it is."""


@FEW
@given(st.data())
def test_legal_growths_are_made_and_obey_the_laws(data: st.DataObject) -> None:
    one = data.draw(graph_modules(steps=5))
    seen, _ = watch(one.model, one.inputs, data.draw(growths(one.model)))
    assert seen.refusal is None


@FEW
@given(st.data())
def test_growths_of_any_kind_obey_the_laws(data: st.DataObject) -> None:
    one = data.draw(graph_modules(steps=5))
    seen, grown = watch(one.model, one.inputs, data.draw(growths(one.model, legal=False)))
    assert (grown is None) == (seen.refusal is not None)


@FEW
@given(st.data())
def test_sequences_are_legal_one_after_another(data: st.DataObject) -> None:
    one = data.draw(graph_modules(steps=3))
    model = one.model
    for growth in data.draw(sequences(model, most=2)):
        seen, grown = watch(model, one.inputs, growth)
        assert seen.refusal is None
        assert grown is not None
        model = grown


PAIR = Sketch(
    inputs=(Input("flat", (3, 4)),),
    steps=(step("linear", 0, out=4, bias=1), step("softmax", 1), step("linear", 2, out=2, bias=1)),
    outputs=(3,),
)


def refused(growth: Growth) -> bool:
    """Whether `PAIR` cannot grow so."""
    one = subject(PAIR)
    return watch(one.model, one.inputs, growth)[0].refusal is not None


def test_refusals_are_drawn_only_if_asked_for() -> None:
    assert refused(find(growths(subject(PAIR).model, legal=False), refused, settings=FIRST))


def test_a_sequence_can_hold_several_growths() -> None:
    assert len(find(sequences(subject(PAIR).model, most=2), lambda row: len(row) == 2, settings=FIRST)) == 2


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_models_can_be_of_their_own_dtype(dtype: str) -> None:
    def wanted(one: Subject) -> bool:
        return one.sketch.dtype == dtype and any(True for _ in one.model.parameters())

    one = find(graph_modules(steps=2, dtype="drawn"), wanted, settings=FIRST)
    assert {p.dtype for p in one.model.parameters()} == {getattr(torch, dtype)}
    plain = subject(one.sketch)
    assert {p.dtype for p in plain.model.parameters()} == {torch.float64}


def test_the_laws_are_watched_in_float64_only() -> None:
    one = subject(Sketch(inputs=PAIR.inputs, steps=PAIR.steps, outputs=PAIR.outputs, dtype="float32"), double=False)
    growth = find(growths(one.model), lambda _: True, settings=FIRST)
    with pytest.raises(UsageError, match=r"linear0.weight has dtype float32(.|\n)*model\.double\(\)"):
        watch(one.model, one.inputs, growth)


@pytest.mark.parametrize(
    "call",
    [
        *(lambda n=n: graph_modules(steps=n) for n in (0, -1, True, 2.0)),
        lambda: sketches(steps=0),
        lambda: sequences(subject(PAIR).model, most=0),
        lambda: graph_modules(dtype="float16"),  # type: ignore[arg-type]  # that is the mistake
    ],
)
def test_options_are_looked_at_when_the_strategy_is_made(call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as refused:
        call()
    assert refused.value.kind is Kind.BAD_OPTION


# -- shrinking --------------------------------------------------------------------------------------------------------


def test_sketches_shrink_to_few_steps_and_small_widths() -> None:
    found = find(sketches(steps=6), lambda s: any(one.op == "layer_norm" for one in s.steps), settings=SAME)
    assert len(found.steps) <= len(["layer_norm", "its reader"]) + 1
    assert max(n for one in found.inputs for n in one.shape) <= 4


@st.composite
def pairs(make: st.DrawFn) -> tuple[Subject, Growth]:
    """A model and a growth."""
    one = make(graph_modules(steps=8))
    return one, make(growths(one.model))


def breaks(pair: tuple[Subject, Growth]) -> bool:
    """Whether a law is broken."""
    one, growth = pair
    try:
        watch(one.model, one.inputs, growth)
    except LawBroken:
        return True
    return False


class Small(BaseException):
    """A breach that is small enough: Hypothesis would go on making its numbers smaller for a minute."""


LONG = settings(SAME, max_examples=3000)
"""Some hundred are tried, most of them to find the first breach."""
CALLS = 4000
"""Pairs that are tried at most."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shrinks_under_hypothesis_alone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, rule, *_ = FAULTS[fault]
    monkeypatch.setitem(RULES, f"aten::{operator}", rule)
    some = (*PLAIN, operator, *(name for name, core in CORES.items() if core == operator))
    monkeypatch.setattr(draw, "DRAWN", some)  # few kinds of steps, so that the fault is found soon
    monkeypatch.setattr(draw, "EACH", some)
    most = len(["input", "linear", operator, "linear", "output"]) + WITHIN
    calls, large = count(), list[int]()

    def shows(pair: tuple[Subject, Growth]) -> bool:
        if next(calls) > CALLS:
            raise TimeoutError
        nodes = len(pair[0].model.graph.nodes)
        if nodes <= most and not large:
            return False  # small from the start shows nothing about shrinking
        if not breaks(pair):
            return False
        large.append(nodes)
        if nodes <= most:
            raise Small
        return True

    with pytest.raises(Small):
        find(pairs(), shows, settings=LONG)
