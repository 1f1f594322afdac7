"""Locates twins and new entries in a grown model, from the plans that are recorded in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..errors import Kind, usage
from ..plans import AxisGrowth, Layout, Leaf, Plan
from ..plans.layout import leaves, old_positions, partners, units

PRODUCED = ("even", "copy", "free", "mean")
"""States of new units in the weights that produce them."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that one growth made along one axis of one parameter: two halves, or a copy and its original."""

    parameter: str
    axis: int
    left: tuple[int, ...]
    """Positions of left halves, or of originals, along the axis in the current model."""
    right: tuple[int, ...]
    """Positions of their twins, in the same order."""
    state: str
    """The state of the pairs at the growth: "even" (equal halves), "odd" (opposite), "copy" or "split" (equal
    shares)."""
    entries: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(axis, positions) along other axes that grew later: the entries that the halves had when they were made."""

    @property
    def role(self) -> str:
        """The parameter's role for the new units: "producer" or "consumer"."""
        return "producer" if self.state in PRODUCED else "consumer"

    def halves(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Return both halves of a tensor shaped like the parameter (a weight, a gradient, optimizer state), one row
        each.

        The sign of the right halves of opposite pairs is flipped, so that both halves are equal at the growth. Entries
        added by later growths are left out, because they differ between the halves.
        """
        rows = tensor.detach()
        for axis, positions in self.entries:
            rows = rows.index_select(axis, torch.tensor(positions, device=rows.device))
        rows = rows.movedim(self.axis, 0).reshape(tensor.shape[self.axis], -1)
        left, right = (rows[torch.tensor(places, device=rows.device)] for places in (self.left, self.right))
        return left, -right if self.state == "odd" else right


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one tensor by one plan."""

    name: str
    new: tuple[int, ...]
    """Shape of the tensor afterwards."""
    axes: tuple[AxisGrowth, ...]
    inserted: bool
    """Whether the plan inserted the tensor."""


def history(model: nn.Module) -> tuple[Plan, ...]:
    """Return the plans that grew a model.

    Raises:
        UsageError: the model has no record of a growth.
    """
    plans = tuple(model.meta.get("fxgrow", ())) if isinstance(model, fx.GraphModule) else ()
    if not plans:
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"{type(model).__name__} has no record of a growth",
            hint="pass the GraphModule that fxgrow returned, or a copy of it",
        )
    return plans


def changes(model: nn.Module) -> dict[str, list[Change]]:
    """Return the changes of each parameter by all growths, in order."""
    found: dict[str, list[Change]] = {}
    for plan in history(model):
        for change in _changes(plan):
            found.setdefault(change.name, []).append(change)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: some for name, some in found.items() if name in parameters}


def _changes(plan: Plan) -> Iterator[Change]:
    for edit in plan.tensors:
        for name in edit.names:
            yield Change(name, edit.new, edit.axes, False)
    for insert in plan.inserts:
        for fresh in insert.tensors:
            yield Change(f"{insert.name}.{fresh.name}", fresh.shape, fresh.axes, True)


def pairs_of(model: nn.Module) -> tuple[Pairs, ...]:
    """Return every pair in the parameters of a grown model, one entry for each growth, parameter and axis.

    Positions are those in the current model, after later growths. A tied parameter is listed once.

    Raises:
        UsageError: the model has no record of a growth.
    """
    names = {name for name, _ in model.named_parameters()}
    found: list[Pairs] = []
    for name, some in changes(model).items():
        for number, change in enumerate(some if name in names else ()):
            later = {axis: _layouts(some[number + 1 :], axis) for axis in range(len(change.new))}
            for growth in change.axes:
                others = tuple(
                    (axis, tuple(_moved(range(change.new[axis]), layouts)))
                    for axis, layouts in later.items()
                    if layouts and axis != growth.axis
                )
                for left, right, state in _pairs(growth.layout):
                    places = [tuple(_moved(half, later[growth.axis])) for half in (left, right)]
                    found.append(Pairs(name, growth.axis, places[0], places[1], state, others))
    return tuple(found)


def new_positions(some: Sequence[Change], axis: int) -> list[int]:
    """Return the positions of the units of one axis that these changes added, in the current model."""
    first = some[0]
    if first.inserted:
        return list(range(some[-1].new[axis]))
    layouts = _layouts(some, axis)
    old = set(_moved(range(len(old_positions(layouts[0]))), layouts)) if layouts else set(range(first.new[axis]))
    return sorted(set(range(some[-1].new[axis])) - old)


def _layouts(some: Sequence[Change], axis: int) -> list[Layout]:
    return [growth.layout for change in some for growth in change.axes if growth.axis == axis]


def _moved(positions: Iterable[int], layouts: Sequence[Layout]) -> list[int]:
    """Return the positions of units after some further growths."""
    found = list(positions)
    for layout in layouts:
        places = old_positions(layout)
        found = [places[k] for k in found]
    return found


def _pairs(layout: Layout) -> Iterator[tuple[list[int], list[int], str]]:
    """Yield the positions of both halves, and their state, for each growing set that consists of pairs."""
    for number, leaf in enumerate(leaves(layout)):
        if leaf.state in ("even", "odd"):
            left, right, _ = partners(layout, number)
        elif leaf.state in ("copy", "split"):
            left, right = _copies(layout, number, leaf)
        else:
            continue
        if left:
            yield left, right, leaf.state


def _copies(layout: Layout, number: int, leaf: Leaf) -> tuple[list[int], list[int]]:
    """Return the positions of originals and of their copies."""
    places = units(layout, number)
    left = [position for unit in leaf.source for position in places[unit]]
    return left, [position for unit in range(leaf.old, leaf.new) for position in places[unit]]
