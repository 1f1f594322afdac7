"""Lies: what a wrong rule would say of its operator. Each is one sentence of a rule with one word changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fxgrow.capture.program.program import Op, Value
from fxgrow.dims.axis import Axis, Fixed
from fxgrow.errors import Kind
from fxgrow.rules import RULES
from fxgrow.rules.base import AxisContext, AxisStates, Rule, SizeContext, StateContext

Plant = Callable[[pytest.MonkeyPatch], None]
"""Plants a fault; it is gone when the patch is undone."""
Answers = dict[str, Callable[..., Any]]
"""By method of what a rule talks to: what it does instead."""


def truth(told: Any) -> Answers:
    """No lie."""
    return {}


@dataclass(frozen=True, slots=True)
class Lie:
    """What is said otherwise: of the states of new units, of axes, of sizes among the arguments."""

    states: Callable[[StateContext], Answers] = truth
    dims: Callable[[AxisContext], Answers] = truth
    sizes: bool = True
    """Whether arguments that are sizes are changed."""


class Misheard:
    """What a rule talks to, but for some answers."""

    def __init__(self, told: Any, answers: Answers) -> None:
        self._told, self._answers = told, answers

    def __getattr__(self, name: str) -> Any:
        return self._answers.get(name) or getattr(self._told, name)


class Wrong:
    """A rule that lies."""

    def __init__(self, rule: Rule, lie: Lie) -> None:
        self.rule, self.lie = rule, lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def dims(self, op: Op, d: AxisContext) -> None:
        """As the right rule, but for the lie."""
        self.rule.dims(op, Misheard(d, self.lie.dims(d)))

    def states(self, op: Op, s: StateContext) -> None:
        """The same."""
        self.rule.states(op, Misheard(s, self.lie.states(s)))

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """The same."""
        return self.rule.resized(op, z) if self.lie.sizes else {}


class Overheard:
    """A rule that is right, and of which is noted what it calls."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.calls = set[str]()
        """Methods of what it talks to, and `sizes` if it changes arguments."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def _heard(self, told: Any) -> Any:
        rule = self

        class Heard:
            def __getattr__(self, name: str) -> Any:
                rule.calls.add(name)
                return getattr(told, name)

            def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
                if told.algebra.growable(axis):  # else nothing changes
                    rule.calls.add("freeze")
                told.freeze(axis, kind, text)

        return Heard()

    def dims(self, op: Op, d: AxisContext) -> None:
        """As the rule."""
        self.rule.dims(op, self._heard(d))

    def states(self, op: Op, s: StateContext) -> None:
        """The same."""
        self.rule.states(op, self._heard(s))

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """The same."""
        changed = self.rule.resized(op, z)
        self.calls |= {"sizes"} if changed else set()
        return changed


def _first(op: Op, states: Any) -> Any:
    return next(iter(states))


def _last(op: Op, states: Any) -> Any:
    return list(states)[-1]


def _deciding(one: Callable[[Op, Any], Any]) -> Answers:
    """Of several states one."""
    return {**dict.fromkeys(("add", "mul", "merge"), one), "by_index": lambda op, axis, states: one(op, states)}


def _claiming(s: StateContext, **claims: bool) -> Answers:
    """A function of each unit that has properties which it has not."""
    return {"map_units": lambda op, states, **how: s.map_units(op, states, **{**how, **claims})}


def _said(change: Callable[[StateContext, AxisStates], AxisStates]) -> Callable[[StateContext], Answers]:
    """Other states of the results."""
    return lambda s: {"set": lambda value, marks: s.set(value, change(s, marks))}


def _led(change: Callable[[AxisContext, Value, list[Any]], list[Any]]) -> Callable[[AxisContext], Answers]:
    """Other axes of the results."""
    return lambda d: {"set": lambda value, axes: d.set(value, change(d, value, list(axes)))}


LIES: dict[str, Lie] = {
    "sums need not vanish": Lie(lambda s: {"contract": lambda op, factors: None}),
    "the first operand decides": Lie(lambda s: _deciding(_first)),
    "the last operand decides": Lie(lambda s: _deciding(_last)),
    "it is odd": Lie(lambda s: _claiming(s, odd=True, zero=True)),
    "it is linear": Lie(lambda s: _claiming(s, odd=True, zero=True, linear=True)),
    "it is linear in the first operand": Lie(lambda s: {"map_units": lambda op, states, **_: _first(op, states)}),
    "any operand will do": Lie(lambda s: {"require": lambda op, state, **_: state, "adapt": lambda op, state: None}),
    "units are not mixed": Lie(lambda s: {"mix": lambda op, state, _: state, "centre": lambda op, state: state}),
    "training is like evaluation": Lie(
        lambda s: {"only_eval": lambda op, why: None, "drawn": lambda op, state, why: state}
    ),
    "new units are zeros": Lie(_said(lambda s, marks: [[s.zero for _ in row] for row in marks])),
    "new units are in the other order": Lie(_said(lambda s, marks: [row[::-1] for row in marks])),
    "the next unit is picked": Lie(
        lambda s: {"select": lambda state, axis, number: s.select(state, axis, (number + 1) % s.grown(axis)[0])}
    ),
    "the first piece is taken": Lie(
        lambda s: {"piece": lambda state, axis, start, taken: s.piece(state, axis, 0, taken)}
    ),
    "any axis may grow": Lie(dims=lambda d: {"freeze": lambda axis, kind, text: None}),
    "operands grow by themselves": Lie(dims=lambda d: {"unify": lambda a, b: a}),
    "the result keeps its size": Lie(dims=_led(lambda d, value, axes: [Fixed(n) for n in value.shape])),
    "axes stay in their places": Lie(
        lambda s: {"set": lambda value, marks: s.set(value, marks[::-1])},
        lambda d: {"set": lambda value, axes: d.set(value, list(axes)[::-1])},
    ),
    "arguments are no sizes": Lie(sizes=False),
}
"""By what is said."""


def wrong(lie: str, *operators: str) -> Plant:
    """The rules of some operators lie. A name without `::` is one of aten."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for name in operators:
            key = name if "::" in name else f"aten::{name}"
            patch.setitem(RULES, key, Wrong(RULES[key], LIES[lie]))

    return plant
