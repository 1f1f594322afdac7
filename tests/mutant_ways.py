"""Ways to plant a fault: rules that lie of new units, plans that are carried out wrongly."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from fxgrow.capture.program import Op
from fxgrow.dims.rules import RULES
from fxgrow.dims.rules.base import Flow, Rule
from fxgrow.plan import Plan, TensorEdit
from fxgrow.plan.layout import Chain, Grid, Layout, Leaf, Still, leaves, partners
from fxgrow.rewrite import values

Plant = Callable[[pytest.MonkeyPatch], None]
writer: Any = importlib.import_module("fxgrow.rewrite.apply")
"""The module: in its package, that name is the function."""


class Lying:
    """The propagation of states as one wrong rule would use it."""

    def __init__(self, flow: Flow, lies: dict[str, Any]) -> None:
        self._flow, self._lies = flow, lies

    def __getattr__(self, name: str) -> Any:
        return self._lies.get(name) or getattr(self._flow, name)


class Wrong:
    """A rule whose sentence about states is wrong."""

    def __init__(self, rule: Rule, lies: Callable[[Flow], dict[str, Any]]) -> None:
        self.rule, self.lies = rule, lies

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def states(self, op: Op, s: Flow) -> None:
        """As the right rule, but for the lies."""
        self.rule.states(op, Lying(s, self.lies(s)))


def silent(s: Flow) -> dict[str, Any]:
    """A sum over new units that demands nothing."""
    return {"contract": lambda op, factors: None}


def first(s: Flow) -> dict[str, Any]:
    """A sum, a product or a row of volumes in the state of its first operand."""
    takes: dict[str, Any] = {n: lambda op, states: next(iter(states)) for n in ("add", "mul", "merge")}
    return takes


def last(s: Flow) -> dict[str, Any]:
    """The same of the last one."""
    takes: dict[str, Any] = {n: lambda op, states: list(states)[-1] for n in ("add", "mul", "merge")}
    return takes


def swapped(s: Flow) -> dict[str, Any]:
    """Pieces that are taken for each other."""
    return {"set": lambda value, marks: s.set(value, [list(reversed(row)) for row in marks])}


def odd(s: Flow) -> dict[str, Any]:
    """A function that is said to be odd, and to keep zero."""
    return {"apply": lambda op, states, **_: s.apply(op, states, odd=True, zero=True)}


def linear(s: Flow) -> dict[str, Any]:
    """A function that is said to be linear."""
    return {"apply": lambda op, states, **_: s.apply(op, states, odd=True, zero=True, linear=True)}


def first_linear(s: Flow) -> dict[str, Any]:
    """Both at once: an operator of several operands that is said to pass the first on."""
    return {**linear(s), **first(s), "apply": lambda op, states, **_: next(iter(states))}


def unmixed(s: Flow) -> dict[str, Any]:
    """A statistic that takes each unit by itself."""
    return {"mix": lambda op, state, mixing: state}


def always(s: Flow) -> dict[str, Any]:
    """What holds in evaluation mode is said to hold in training, too."""
    return {"only_eval": lambda op, why: None}


def wrong(lies: Callable[[Flow], dict[str, Any]], *names: str) -> Plant:
    """The rules of some operators lie."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setitem(RULES, f"aten::{name}", Wrong(RULES[f"aten::{name}"], lies))

    return plant


def edited(change: Callable[[Plan], Plan]) -> Plant:
    """Plans are carried out as others."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        commit, ready = writer._commit, writer._ready
        patch.setattr(writer, "_commit", lambda plan, *rest: commit(change(plan), *rest))
        patch.setattr(writer, "_ready", lambda plan, *rest: ready(change(plan), *rest))

    return plant


def without(name: str) -> Plant:
    """A kind of edit is forgotten."""
    return edited(lambda plan: replace(plan, **dict[str, Any]({name: ()})))


def forgotten(which: Callable[[TensorEdit], bool]) -> Plant:
    """Some tensors are forgotten."""
    return edited(lambda plan: replace(plan, tensors=tuple(t for t in plan.tensors if not which(t))))


def changed(change: Callable[[TensorEdit], TensorEdit]) -> Plant:
    """Tensors grow in another way."""
    return edited(lambda plan: replace(plan, tensors=tuple(map(change, plan.tensors))))


def restated(**states: str) -> Plant:
    """New blocks hold another state than the plan says."""

    def leaf(layout: Layout) -> Layout:
        match layout:
            case Grid() | Chain():
                return replace(layout, parts=tuple(map(leaf, layout.parts)))
            case Leaf():
                return replace(layout, state=states.get(layout.state, layout.state))
            case Still():
                return layout

    def change(edit: TensorEdit) -> TensorEdit:
        return replace(edit, axes=tuple(replace(g, layout=leaf(g.layout)) for g in edit.axes))

    return changed(change)


def halves(
    change: Callable[[list[int], list[int], list[int]], tuple[list[int], list[int], list[int]]], state: str
) -> Plant:
    """The writer takes other positions for the halves of one state."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        pair, told = values._pair, partners

        def wrongly(tensor: Tensor, axis: int, layout: Layout, number: int) -> None:
            if list(leaves(layout))[number].state != state:
                return pair(tensor, axis, layout, number)
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(values, "partners", lambda *rest: change(*told(*rest)))
                return pair(tensor, axis, layout, number)

        patch.setattr(values, "_pair", wrongly)

    return plant


def replaced(place: object, name: str, function: Callable[..., Any]) -> Plant:
    """A function is another one, which gets the old one first."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        old = getattr(place, name)
        patch.setattr(place, name, lambda *args, **options: function(old, *args, **options))

    return plant
