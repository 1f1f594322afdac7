"""Recurrent layers: planted mistakes in their rules are found, and their shapes are known without a run."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrow
from fxgrow.capture.program.call_key import module_key
from fxgrow.capture.recording.recorder import record
from fxgrow.rules import RULES, recurrent
from fxgrow.rules import recurrent_cells as equations
from fxgrow.testing.laws import Operand, examine

from .test_recurrent import SHAPES, TOKENS, tagger

# -- the oracle finds what is wrong --------------------------------------------------------------------------------

GRU = (*map(Operand, [(3, 2, 4), (1, 2, 3), (9, 4), (9, 3)]),)
RELU = (*map(Operand, [(3, 2, 4), (1, 2, 3), (3, 4), (3, 3)]),)


def layer(name: str, x: Tensor, h: Tensor, *weights: Tensor) -> Any:
    return getattr(torch, name)(x, h, list(weights), False, 1, 0.0, False, False, False)


def test_a_rule_that_forgets_the_recurrence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(partial(layer, "gru"), *GRU).wrong == ()
    monkeypatch.setattr(recurrent, "_vanish", lambda op, s, read, columns: None)
    assert examine(partial(layer, "gru"), *GRU).wrong


def test_a_rule_with_the_wrong_equations_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(partial(layer, "rnn_relu"), *RELU).wrong == ()
    monkeypatch.setitem(RULES, "aten::rnn_relu", recurrent.Sequence(1, equations.elman(odd=True)))
    assert examine(partial(layer, "rnn_relu"), *RELU).wrong


# -- shapes without a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_the_recorder_knows_the_shapes_of_the_operator(name: str) -> None:
    module: Any = SHAPES[name]()
    real = module.rnn.double()
    x = torch.zeros(7, 2, 5, dtype=torch.float64)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake, calls = record(lambda: real(mode.from_tensor(x)), mode, False)
    assert [func.overloadpacket.__name__ for func, *_ in calls][-1] == real.mode.lower()
    assert layout(fake) == layout(real(x))


def layout(tree: Any) -> Any:
    """Shapes and strides of all tensors in a result."""
    return [layout(t) for t in tree] if isinstance(tree, tuple) else (tuple(tree.shape), tree.stride())


def test_the_recorder_refuses_weights_that_do_not_fit() -> None:
    mode = FakeTensorMode()
    with mode:
        x, h, i, w = torch.zeros(3, 2, 4), torch.zeros(1, 2, 3), torch.zeros(9, 4), torch.zeros(9, 4)
    with pytest.raises(RuntimeError, match="gru of 4 features and 3 hidden units"):
        record(lambda: layer("gru", x, h, i, w), mode, False)


def test_the_cost_counts_every_weight_at_every_step() -> None:
    plan = fxgrow.plan_widen(tagger(), "lstm")
    steps = TOKENS.numel()

    def weights(hidden: int) -> int:
        first, second = 4 * hidden * (8 + hidden), 4 * hidden * (2 * hidden + hidden)
        return 2 * (first + second) + 2 * hidden * 4

    assert (plan.before.flops, plan.after.flops) == (2 * steps * weights(6), 2 * steps * weights(12))


def test_layers_of_one_signature_are_lowered_once() -> None:
    first, second, other = nn.LSTM(4, 5), nn.LSTM(4, 5), nn.LSTM(4, 6)
    assert module_key(first, {}, {}) == module_key(second, {}, {})
    assert module_key(first, {}, {}) != module_key(other, {}, {})
