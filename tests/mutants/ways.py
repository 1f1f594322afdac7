"""Ways to plant a fault: plans that are carried out otherwise, values that are not what the plan says."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from fxgrow.plans import AxisGrowth, Plan, TensorEdit
from fxgrow.plans.insertion import BlockTensor
from fxgrow.plans.layout import Grid, Layout, Leaf, leaves, partners, size
from fxgrow.rewrite import new_values as values

from .lies import Plant

Planted = dict[str, tuple[Plant, tuple[str, ...]]]
"""Faults by what is wrong: how each is planted, and the subjects that should show it first."""
writer: Any = importlib.import_module("fxgrow.rewrite.apply")
"""The module: in its package, that name is the function."""


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


def relaid(change: Callable[[Layout], Layout], which: Callable[[TensorEdit], bool] = lambda edit: True) -> Plant:
    """New units lie elsewhere, or hold something else, in some tensors that grow and in all of new blocks."""

    def inside(layout: Layout) -> Layout:
        parts: Any = getattr(layout, "parts", None)
        whole: Any = layout
        return change(layout if parts is None else replace(whole, parts=tuple(map(inside, parts))))

    def axes(old: tuple[AxisGrowth, ...]) -> tuple[AxisGrowth, ...]:
        return tuple(replace(growth, layout=inside(growth.layout)) for growth in old)

    return both(
        changed(lambda edit: replace(edit, axes=axes(edit.axes)) if which(edit) else edit),
        refilled(lambda new: replace(new, axes=axes(new.axes))),
    )


def restated(**states: str) -> Plant:
    """New blocks hold another state than the plan says."""

    def change(layout: Layout) -> Layout:
        return replace(layout, state=states.get(layout.state, layout.state)) if isinstance(layout, Leaf) else layout

    return relaid(change)


def behind(layout: Layout) -> Layout:
    """New units of a product all lie behind its old ones, not within the groups, heads or gates that they are of."""
    some = list(leaves(layout))
    if not isinstance(layout, Grid) or len(some) != 1:
        return layout
    return Leaf(size(layout, new=False), size(layout, new=True), some[0].state)


def refilled(change: Callable[[BlockTensor], BlockTensor]) -> Plant:
    """Tensors of new blocks are filled in another way."""

    def plan(old: Plan) -> Plan:
        return replace(old, inserts=tuple(replace(i, tensors=tuple(map(change, i.tensors))) for i in old.inserts))

    return edited(plan)


def both(*plants: Plant) -> Plant:
    """Several faults at once."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for one in plants:
            one(patch)

    return plant


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
