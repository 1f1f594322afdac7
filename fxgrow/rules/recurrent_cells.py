"""The equations of recurrent cells, computed on states of new units instead of numbers."""

from __future__ import annotations

from collections.abc import Callable

from ..capture.program.program import Op
from .base import State, StateContext

Equations = Callable[[StateContext, Op, State, State, State], tuple[State, State]]
"""One step of one unit: a function (context, operator, u, v, memory) -> (hidden state, memory), where u and v are the
contributions of the input and of the hidden state to the gates. The memory is the cell state of an LSTM, and otherwise
the hidden state."""


def elman(*, odd: bool) -> Equations:
    """h = f(u + v), f odd (tanh) or not (relu)."""

    def step(s: StateContext, op: Op, u: State, v: State, memory: State) -> tuple[State, State]:
        h = s.map_units(op, [s.add(op, [u, v])], odd=odd, zero=True)
        return h, h

    return step


def gru(s: StateContext, op: Op, u: State, v: State, memory: State) -> tuple[State, State]:
    """r, z = sigmoid(u + v); n = tanh(u + r v); h = (1 - z) n + z h."""
    gate = s.map_units(op, [s.add(op, [u, v])], odd=False, zero=False)
    n = s.map_units(op, [s.add(op, [u, s.mul(op, [gate, v])])], odd=True, zero=True)
    h = s.add(op, [s.mul(op, [gate, n]), s.mul(op, [gate, memory])])
    return h, h


def lstm(s: StateContext, op: Op, u: State, v: State, memory: State) -> tuple[State, State]:
    """i, f, o = sigmoid(u + v); g = tanh(u + v); c = f c + i g; h = o tanh(c)."""
    preactivation = s.add(op, [u, v])
    gate = s.map_units(op, [preactivation], odd=False, zero=False)
    g = s.map_units(op, [preactivation], odd=True, zero=True)
    c = s.add(op, [s.mul(op, [gate, memory]), s.mul(op, [gate, g])])
    return s.mul(op, [gate, s.map_units(op, [c], odd=True, zero=True)]), c
