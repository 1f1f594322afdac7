"""Each law of the fuzzer fails where it must; refused growths that would do no harm are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.program.program import Op
from fxgrow.errors import Kind
from fxgrow.planning import module_attributes as attributes
from fxgrow.plans import Plan
from fxgrow.rewrite import apply
from fxgrow.rewrite import new_values as values
from fxgrow.rules import RULES
from fxgrow.rules.base import AxisContext
from fxgrow.rules.pointwise import Unary
from fxgrow.testing.fuzzing import further
from fxgrow.testing.fuzzing.entries import EntriesChanged, look
from fxgrow.testing.fuzzing.forced import Forced, force
from fxgrow.testing.fuzzing.further import look_further
from fxgrow.testing.fuzzing.growths import Deepening, Growth, Whole, Widening, plan_of
from fxgrow.testing.fuzzing.laws import Seen, watch
from fxgrow.testing.fuzzing.pairs import subject
from fxgrow.testing.fuzzing.promises import LawBroken
from fxgrow.testing.fuzzing.running import Stand
from fxgrow.testing.fuzzing.sketch import Input, Sketch, step
from fxgrow.testing.fuzzing.tally import Tally

FLAT = Sketch(
    inputs=(Input("flat", (3, 4)),),
    steps=(step("linear", 0, out=4, bias=1), step("pointwise", 1, kind=0), step("linear", 2, out=2, bias=1)),
    outputs=(3,),
)
CONV = partial(step, "conv", kernel=3, groups=1, stride=1, bias=1)
IMAGE = Sketch(
    inputs=(Input("image", (2, 3, 4, 4)),),
    steps=(CONV(0, out=4), step("instance_norm", 1, affine=0), CONV(2, out=2)),
    outputs=(3,),
    dtype="float32",
    channels_last=True,
)
WIDER, DEEPER = Widening(nodes=("linear0",), by=2, scheme="r2r"), Whole(factor=2.0, deepen="pointwise1", scheme="r2r")
CONVS = Widening(nodes=("conv0",), by=2, scheme="r2r")


def all_laws(sketch: Sketch, growth: Growth) -> Seen:
    """Watch them all."""
    one = subject(sketch)
    seen, _ = watch(one.model, one.inputs, growth)
    look_further(sketch, one.model, one.inputs, seen)
    return seen


@pytest.mark.parametrize(("sketch", "growth"), [(FLAT, WIDER), (FLAT, DEEPER), (IMAGE, CONVS)])
def test_all_laws_hold_without_a_fault(sketch: Sketch, growth: Growth) -> None:
    assert all_laws(sketch, growth).plan is not None


# -- laws of the writer -----------------------------------------------------------------------------------------------


def other_width(growth: Growth, model: fx.GraphModule) -> Plan:
    """One unit too many where four are asked for."""
    four = isinstance(growth, Widening) and growth.by == 4
    return plan_of(replace(WIDER, by=5) if four else growth, model)


def other_seed(plan: Plan, model: fx.GraphModule) -> fx.GraphModule:
    """Single steps draw other values."""
    return apply(plan if plan.then else replace(plan, seed=plan.seed + 1, model=""), model)


def formless(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor without the memory format of the old one."""
    return torch.empty(shape, dtype=old.dtype)


FAULTS: dict[str, tuple[Any, str, Callable[..., Any], Sketch, Growth, str]] = {
    "another width at once": (further, "plan_of", other_width, FLAT, WIDER, "grow, then grow"),
    "other values step by step": (further, "apply", other_seed, FLAT, DEEPER, "its steps in sequence"),
    "a format is lost": (values, "like", formless, IMAGE, CONVS, "old entries stay: conv0.weight: strides"),
    "a width is forgotten": (attributes, "_read", lambda now, _: now, IMAGE, CONVS, "num_features"),
}


@pytest.mark.filterwarnings("ignore:input's size at dim=1")  # the law is to see it, not the simulation before it
@pytest.mark.parametrize("name", FAULTS)
def test_a_law_fails_where_it_must(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, fault, sketch, growth, law = FAULTS[name]
    monkeypatch.setattr(where, what, fault)
    with pytest.raises(LawBroken, match=law):
        all_laws(sketch, growth)


SHARED = Sketch(
    inputs=(Input("image", (2, 1, 1, 1, 2)), Input("image", (2, 6, 1, 1, 2))),
    steps=(
        step("instance_norm", 1, affine=0),
        step("conv", 0, out=6, kernel=1, groups=1, stride=1, bias=1),
        step("again", 3, of=0),
        step("conv", 4, out=1, kernel=1, groups=1, stride=1, bias=1),
    ),
    outputs=(5,),
)
"""One norm without tensors, called on two volumes, of which one grows."""
TINY = Sketch(inputs=(Input("image", (2, 1, 1, 2, 2)),), steps=(step("rms_norm_of_channels", 0),), outputs=(1,))
"""Each number is divided by itself, or, where it is zero, by the root of torch's epsilon."""
BEFORE_A_NORM = Deepening(name="movedim", side="after", scheme="r2r")


@pytest.mark.filterwarnings("ignore:input's size at dim=1")  # torch says that of one of the two calls
def test_a_norm_without_tensors_may_be_called_on_volumes_of_two_widths() -> None:
    assert all_laws(SHARED, Widening(nodes=("conv1",), by=6, scheme="auto")).plan is not None


def test_rounding_that_a_norm_multiplies_is_told_from_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    one = subject(TINY)
    monkeypatch.setattr("fxgrow.insertion.inserting.check_other_sizes", lambda *_: None)  # it takes one size only
    seen, grown = watch(one.model, one.inputs, BEFORE_A_NORM)
    assert grown is not None
    assert not fxgrow.verify(one.model, grown, example_inputs=one.inputs).held
    look_further(TINY, one.model, one.inputs, seen)
    monkeypatch.setattr(Stand, "own_rounding", lambda *_: 0.0)
    with pytest.raises(LawBroken, match="the certificate holds"):
        look_further(TINY, one.model, one.inputs, seen)


def changed(model: nn.Module) -> None:
    """One old entry is another one."""
    with torch.no_grad():
        model.get_parameter("linear0.weight")[0, 0] += 1e-9


def untouched(model: nn.Module) -> None:
    """A tensor that the plan does not name is written."""
    with torch.no_grad():
        model.get_parameter("linear2.bias").mul_(2)


def single(model: nn.Module) -> None:
    """A tensor changes its dtype."""
    model.get_submodule("linear0").float()


def held_fast(model: nn.Module) -> None:
    """A parameter does not learn any more."""
    model.get_parameter("linear2.weight").requires_grad_(False)


@pytest.mark.parametrize("fault", [changed, untouched, single, held_fast])
def test_entries_that_change_are_seen(fault: Callable[[nn.Module], None]) -> None:
    one = subject(FLAT)
    plan = plan_of(WIDER, one.model)
    grown = apply(plan, one.model)
    look(plan, one.model, grown)
    fault(grown)
    with pytest.raises(EntriesChanged, match="linear"):
        look(plan, one.model, grown)


# -- refusals that are forced -----------------------------------------------------------------------------------------


def forced(sketch: Sketch, growth: Growth) -> tuple[Seen, Forced]:
    """A refusal, and what came of forcing it."""
    one = subject(sketch)
    seen, _ = watch(one.model, one.inputs, growth)
    found = force(one.model, one.inputs, growth, seen.refusal, Stand(one.model))
    assert found is not None
    return seen, found


class Anxious(Unary):
    """A function of each unit that lets none grow."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Nothing may grow."""
        super().dims(op, d)
        d.freeze(d.of(op.outputs[0])[1], Kind.WINDOW, "a window runs over it")


def test_a_rule_that_refuses_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten::relu", Anxious())
    seen, found = forced(FLAT, WIDER)
    assert seen.refusal is Kind.WINDOW
    assert found.harmless.endswith("(provable)")
    tally = Tally()
    tally.pair(replace(seen, forced=True, harmless=f"at relu, by r2r: {found.harmless}"), "seed 1, model 2")
    assert "refused, but without effect when forced: 1 of 1 forced refusals" in tally.text(1.0)
    assert "seed 1, model 2: Widening(nodes=('linear0',)" in tally.text(1.0)


def identity_layer(place: str, activation: str) -> Deepening:
    """A wish for one."""
    return Deepening(name=place, scheme="net2net", norm="none", activation=activation)


def test_a_non_linearity_that_would_do_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (FLAT.steps[0], step("pointwise", 1, kind=0), step("binary", 2, 2, kind=0), FLAT.steps[2])
    model = replace(FLAT, steps=(*steps[:3], step("linear", 3, out=2, bias=1)), outputs=(4,))
    names = [n.name for n in subject(model).model.graph.nodes]
    growth = identity_layer(names[-3], "relu")  # a sum of what has passed a ReLU
    one = subject(model)
    assert watch(one.model, one.inputs, growth)[0].refusal is None
    monkeypatch.setattr("fxgrow.insertion.context.bounds_of", lambda *_: (-float("inf"), float("inf")))
    seen, found = forced(model, growth)
    assert seen.refusal is Kind.NOT_IDEMPOTENT
    assert found == Forced(1, "ReLU")


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_a_non_linearity_that_would_change_something_does_harm(activation: str) -> None:
    seen, found = forced(FLAT, identity_layer("linear2" if activation == "relu" else "linear0", activation))
    assert seen.refusal is Kind.NOT_IDEMPOTENT
    assert found == Forced(1)


def test_a_refusal_that_says_nothing_of_the_function_is_not_forced() -> None:
    one = subject(FLAT)
    growth = Deepening(name="nowhere")
    seen, _ = watch(one.model, one.inputs, growth)
    assert force(one.model, one.inputs, growth, seen.refusal, Stand(one.model)) is None


def test_a_refusal_that_is_right_does_harm() -> None:
    seen, found = forced(replace(FLAT, steps=(FLAT.steps[0], step("softmax", 1), FLAT.steps[2])), WIDER)
    assert seen.refusal is Kind.SOFTMAX
    assert found.tried > 0
    assert found.harmless == ""
