"""The oracle of the op rules must fail where a rule is wrong: planted mistakes, each with what it must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fxgrow.capture.program.program import Op
from fxgrow.plans.layout import Grid, Layout, Leaf, Still
from fxgrow.proof.states import State
from fxgrow.rules import RULES
from fxgrow.rules.arithmetic import Multiply
from fxgrow.rules.base import AxisContext, Rule, SameSizes, StateContext
from fxgrow.rules.contraction import Contraction
from fxgrow.rules.norm import PerChannel
from fxgrow.rules.pointwise import Unary
from fxgrow.rules.reduce import Reduce
from fxgrow.rules.shape import Permute, View
from fxgrow.testing.blocks import anything, equal, grow, holds, old_part, shared, states_of
from fxgrow.testing.laws import Operand, RuleBroken, check_rule, examine


class FirstOnly(SameSizes):
    """The axes and states of the first operand, whatever the others are."""

    def dims(self, op: Op, d: AxisContext) -> None:
        d.set(op.outputs[0], d.of(next(op.inputs())))

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(next(op.inputs())))


class Scaleless(PerChannel):
    """A batch norm that asks nothing of its scale."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(op.args["input"]))


class Reversed(SameSizes):
    """chunk with its pieces exchanged."""

    def dims(self, op: Op, d: AxisContext) -> None:
        parts = d.algebra.cut(d.of(op.args["self"])[0], [out.shape[0] for out in op.outputs])
        for out, part in zip(op.outputs, reversed(parts), strict=True):
            d.set(out, [part])

    def states(self, op: Op, s: StateContext) -> None:
        for out in op.outputs:
            s.set(out, [[s.same] * s.count(axis) for axis in s.axes(out)])


class Silent(SameSizes):
    """Says nothing of its second result."""

    dims, states = FirstOnly.dims, FirstOnly.states


class Unsized(View):
    """A view whose written sizes stay."""

    def resized(self, op: Op, z: Any) -> dict[str, Any]:
        return {}


SQUARE = (Operand((4, 6)),)
PAIR = (Operand((4, 6)), Operand((4, 6)))
PLANTED: list[tuple[str, str, Rule, Callable[..., Any], tuple[Operand, ...], str]] = [
    ("relu is odd", "relu", Unary(odd=True, zero=True), F.relu, SQUARE, "claimed to be odd"),
    ("sigmoid keeps zero", "sigmoid", Unary(zero=True), torch.sigmoid, SQUARE, "claimed to be zero"),
    ("sqrt is safe", "sqrt", Unary(zero=True), torch.sqrt, SQUARE, "gradient at a block of zeros is infinite"),
    ("log is safe", "log", Unary(), torch.log, SQUARE, "gradient at a block of zeros is infinite"),
    ("add joins nothing", "add", FirstOnly(), torch.add, PAIR, "does not run after the growth"),
    ("add multiplies", "add", Multiply(), torch.add, PAIR, "aten::add: axis 0 is claimed to be"),
    ("mul adds", "mul", RULES["aten::add"], torch.mul, PAIR, "claimed to be odd"),
    ("softmax is pointwise", "softmax", Unary(), lambda x: F.softmax(x, 1), SQUARE, "old entries change"),
    ("a mean is a sum", "mean", Reduce(linear=True, zero=True, sums=True), lambda x: x.mean(1), SQUARE, "old entries"),
    ("amax is linear", "amax", Reduce(linear=True, zero=True), lambda x: x.amax(1), SQUARE, "claimed to be odd"),
    ("nothing moves", "transpose", FirstOnly(), lambda x: x.transpose(0, 1), SQUARE, "was predicted"),
    ("a view moves", "view", Permute(), lambda x: x.view(6, 4), SQUARE, "does not run after the growth"),
    ("sizes stay", "view", Unsized("size"), lambda x: x.view(2, 2, 6), SQUARE, "does not run after the growth"),
    ("pieces exchanged", "chunk", Reversed(), lambda x: x.chunk(2), (Operand((6,)),), "old entries change"),
    ("one result forgotten", "frexp", Silent(), torch.frexp, SQUARE, "the rules say nothing about one of its results"),
    (
        "a norm asks nothing of its scale",
        "batch_norm",
        Scaleless(),
        lambda x, w: F.batch_norm(x, None, None, w, training=True),
        (Operand((3, 6)), Operand((6,))),
        "claimed to be even",
    ),
    (
        "groups of a norm grow from within",
        "group_norm",
        FirstOnly(),
        lambda x: F.group_norm(x, 2),
        (Operand((3, 6)),),
        "old entries change",
    ),
    (
        "groups of a convolution are not counted",
        "conv1d",
        Contraction("n i *, o k *, o -> n o *", "input", "weight", "bias", bias="bias", weight="weight"),
        lambda x, w: F.conv1d(x, w, groups=2),
        (Operand((2, 4, 1)), Operand((6, 2, 1))),
        "does not run after the growth",
    ),
    (
        "a bias is a factor",
        "linear",
        Contraction("... i, o i, o -> ... o", "input", "weight", "bias", weight="weight"),
        F.linear,
        (Operand((3, 4)), Operand((5, 4)), Operand((5,))),
        "axis 0 is claimed to be",
    ),
]


@pytest.mark.parametrize(
    ("name", "rule", "call", "operands", "says"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED]
)
def test_a_wrong_rule_is_found(
    name: str,
    rule: Rule,
    call: Callable[..., Any],
    operands: tuple[Operand, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(RULES, f"aten::{name}", rule)
    with pytest.raises(RuleBroken, match=says):
        check_rule(call, *operands)


def test_a_rule_that_says_too_little_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(torch.tanh, *SQUARE).strict == ()
    monkeypatch.setitem(RULES, "aten::tanh", Unary())
    said = {what for _, what in examine(torch.tanh, *SQUARE).strict}
    zero, odd = (
        "axis 0 of the result is zero, but only even is claimed",
        "axis 0 of the result is odd, but only free is claimed",
    )
    assert {f"x0[0] zero: {zero}", f"x0[0] odd: {odd}"} <= said


class Bounded(Unary):
    """A function of which nothing is known but that it keeps no infinities; copies become anything."""

    def states(self, op: Op, s: StateContext) -> None:
        lost = [[s.mul(op, [x, s.add(op, [x, s.zero])]) for x in row] for row in s.of(op.args["self"])]
        s.set(op.outputs[0], lost)


def test_a_rule_that_forgets_copies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten::cos", Bounded())
    said = {what for _, what in examine(torch.cos, *SQUARE).strict}
    assert "x0[0] copy: axis 0 of the result is copy, but only free is claimed" in said


def test_a_call_that_holds_a_tensor_of_its_own_is_not_judged() -> None:
    held = torch.ones(4, 6)
    with pytest.raises(ValueError, match="pass it as an operand"):
        check_rule(lambda x: x + held, *SQUARE)


HELD = {
    State.EVEN: {State.EVEN},
    State.ODD: {State.ODD},
    State.ZERO: {State.ZERO, State.EVEN, State.ODD},
    State.COPY: {State.COPY, State.SPLIT},
    State.SPLIT: {State.COPY, State.SPLIT},
    State.MEAN: {State.MEAN, State.EVEN},
    State.FREE: set[State](),
}
"""By state of an operand: the states that its new units are in (copies and shares differ in the old ones)."""


@pytest.mark.parametrize("state", HELD)
@pytest.mark.parametrize("new", [7, 8])
def test_blocks_are_drawn_in_their_states_and_known_by_them(state: State, new: int) -> None:
    random = torch.Generator().manual_seed(0)
    leaf = Leaf(4, new, state.value, (1, 0, 1, 3)[: new - 4])
    layouts: dict[int, Layout] = {0: leaf, 1: Grid((Still(2), leaf, Still(3)))}
    old = anything((4, 24), random, True)
    grown = grow(old, layouts, anything, random, True)
    assert grown.shape == (new, 6 * new)
    assert equal(old_part(grown, layouts), shared(old, layouts, {axis: [state] for axis in layouts}))
    for axis, layout in layouts.items():
        assert states_of(grown, axis, layout, 0, set(State)) - {State.FREE} == HELD[state]


def test_shares_add_up_to_what_the_old_units_were() -> None:
    leaf = Leaf(3, 6, State.SPLIT.value, (1, 1, 0))
    old = torch.tensor([3.0, 6, 5], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    assert grow(old, {0: leaf}, anything, random, False).tolist() == [1.5, 2, 5, 2, 2, 1.5]


def test_one_value_for_all_and_nothing_at_all_are_known() -> None:
    leaf = Leaf(2, 4, State.FREE.value)
    assert holds(torch.full((4,), 3.0), 0, leaf, 0, State.SAME)
    assert not holds(torch.tensor([3.0, 3, 3, 4]), 0, leaf, 0, State.SAME)
    assert holds(torch.zeros(4), 0, leaf, 0, State.NULL)
    assert not holds(torch.tensor([1.0, 0, 0, 0]), 0, leaf, 0, State.NULL)


def test_an_odd_block_has_a_zero_where_a_unit_has_no_twin() -> None:
    leaf = Leaf(2, 5, State.ODD.value)
    assert states_of(torch.tensor([1.0, 1, 3, -3, 0]), 0, leaf, 0) == {State.ODD}
    assert states_of(torch.tensor([1.0, 1, 3, -3, 1]), 0, leaf, 0) == set()
    assert states_of(torch.tensor([1.0, 1, 3, 3, 1]), 0, leaf, 0) == {State.EVEN}
