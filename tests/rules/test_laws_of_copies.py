"""The oracle of the op rules must fail where a rule is wrong about copies, shares, means, norms or parts of an axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.capture.program.program import Op
from fxgrow.rules import RULES
from fxgrow.rules.attention import Attention
from fxgrow.rules.axis_ops import Softmax
from fxgrow.rules.base import Rule, StateContext
from fxgrow.rules.mixing import Mixing
from fxgrow.rules.norm import GroupNorm, WholeAxis
from fxgrow.rules.pointwise import PRelu, Unary
from fxgrow.rules.slicing import Select
from fxgrow.testing.laws import Operand, RuleBroken, check_rule


class Misled:
    """A flow in which a normalisation is described wrongly."""

    def __init__(self, flow: StateContext, **changes: Any) -> None:
        self.flow, self.changes = flow, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.flow, name)

    def mix(self, op: Op, state: Any, mixing: Mixing) -> Any:
        return self.flow.mix(op, state, replace(mixing, **self.changes))


class Wrongly(WholeAxis):
    """A norm over a whole axis, described wrongly."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def states(self, op: Op, s: StateContext) -> None:
        misled: Any = Misled(s, **self.changes)
        super().states(op, misled)


class Unmixed(WholeAxis):
    """A norm over a whole axis that leaves its units as they are."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(op.outputs[0], s.of(op.args["input"]))


class Copied(Softmax):
    """A softmax that leaves copies as copies."""

    def states(self, op: Op, s: StateContext) -> None:
        marks = s.of(op.args["self"])
        super().states(op, s)
        s.set(op.outputs[0], marks)


class Uneven(Softmax):
    """A softmax for which any copies will do."""

    def states(self, op: Op, s: StateContext) -> None:
        misled: Any = Misled(s, even=True)
        super().states(op, misled)


class Unsloped(PRelu):
    """A prelu that keeps equal units equal, whatever their slopes."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(
            op.outputs[0], [[s.map_units(op, [x], odd=False, zero=True) for x in row] for row in s.of(op.args["self"])]
        )


class Plain(GroupNorm):
    """A group norm that looks at the groups, not at their scales."""

    def states(self, op: Op, s: StateContext) -> None:
        s.set(
            op.outputs[0],
            [[s.map_units(op, [x], odd=False, zero=False) for x in row] for row in s.of(op.args["input"])],
        )


class Unmasked(Attention):
    """An attention that does not look at its mask."""

    def states(self, op: Op, s: StateContext) -> None:
        super().states(op, s)
        out = s.of(op.outputs[0])
        out[-2] = [s.map_units(op, [x], odd=False, zero=False) for x in s.of(op.args["query"])[-2]]
        s.set(op.outputs[0], out)


class FirstPart(Select):
    """A selection that takes the first part for any."""

    def states(self, op: Op, s: StateContext) -> None:
        marks, axis = s.of(op.args["self"]), s.axes(op.args["self"])[0]
        s.set(op.outputs[0], [[s.select(x, axis, 0) for x in row] for row in marks[1:]])


def product_of_parts(x: Tensor) -> Tensor:
    """Two parts of an axis, multiplied."""
    y = x.view(2, 4)
    return y.select(0, 0) * y.select(0, 1)


def masked(q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
    """Attention with a mask."""
    return F.scaled_dot_product_attention(q, k, v, m)


SQUARE = (Operand((4, 6)),)
NORMED = (Operand((3, 4)), Operand((4,)))


def rms(x: Tensor, w: Tensor) -> Tensor:
    """A norm with a large epsilon."""
    return F.rms_norm(x, (4,), w, 0.5)


def layer(x: Tensor, w: Tensor) -> Tensor:
    """A norm with a large epsilon."""
    return F.layer_norm(x, (4,), w, None, 0.5)


PLANTED: dict[str, tuple[str, Rule, Callable[..., Any], tuple[Operand, ...], str]] = {
    "tanh is linear": ("tanh", Unary(odd=True, zero=True, linear=True), torch.tanh, SQUARE, "split: .*old entries"),
    "relu is linear": ("relu", Unary(zero=True, linear=True), F.relu, SQUARE, "claimed to be (mean|odd)"),
    "softmax keeps copies": ("softmax", Copied(), lambda x: x.softmax(1), SQUARE, "copy: .*old entries change"),
    "softmax takes any copies": ("softmax", Uneven(), lambda x: x.softmax(1), SQUARE, "old entries change"),
    "rms_norm keeps its scale": ("rms_norm", Unmixed(), rms, NORMED, "zero.*old entries change"),
    "rms_norm keeps its epsilon": ("rms_norm", Wrongly(epsilon=None), rms, NORMED, "zero.*old entries change"),
    "layer_norm keeps its epsilon": ("layer_norm", Wrongly(epsilon=None), layer, NORMED, "mean.*old entries change"),
    "layer_norm takes no mean": ("layer_norm", Wrongly(kind="rms_norm"), layer, NORMED, "zero.*old entries change"),
    "rms_norm counts no units": ("rms_norm", Wrongly(old=1, new=1), rms, NORMED, "zero.*old entries change"),
    "layer_norm takes any copies": ("layer_norm", Wrongly(even=True), layer, NORMED, "old entries change"),
    "slopes do not matter": (
        "prelu",
        Unsloped(),
        torch.prelu,
        (Operand((3, 4)), Operand((4,))),
        "free: .*claimed to be (even|copy)",
    ),
    "scales of groups do not matter": (
        "group_norm",
        Plain(),
        lambda x, w: F.group_norm(x, 2, w),
        (Operand((3, 4)), Operand((4,))),
        "free.*claimed to be",
    ),
    "masks do not matter": (
        "scaled_dot_product_attention",
        Unmasked(),
        masked,
        (Operand((3, 4)), Operand((5, 4)), Operand((5, 2)), Operand((3, 5))),
        "claimed to be",
    ),
    "one part is as good as another": ("select", FirstPart(), product_of_parts, (Operand((8,)),), "claimed to be"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, rule, call, operands, says = PLANTED[name]
    check_rule(call, *operands)
    monkeypatch.setitem(RULES, f"aten::{operator}", rule)
    with pytest.raises(RuleBroken, match=says):
        check_rule(call, *operands)
