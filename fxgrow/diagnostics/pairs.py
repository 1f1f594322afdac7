"""Where twins lie in a grown model, and which entries are new, from the plans that the model remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..errors import Kind, usage
from ..plans import AxisGrowth, Layout, Leaf, Plan
from ..plans.layout import leaves, old_positions, partners, units

PRODUCED = ("even", "copy", "free", "mean")
"""States of new units in the weights that they are born from."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs that one growth made along one axis of one parameter: two halves, or a copy and its original."""

    parameter: str
    axis: int
    left: tuple[int, ...]
    """Positions of left halves, or of originals, along the axis in the model as it is now."""
    right: tuple[int, ...]
    """Those of their twins, in the same order."""
    state: str
    """What they were at the growth: "even" (equal halves), "odd" (opposite ones), "copy", or "split" (equal shares)."""
    entries: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(axis, positions) along other axes that grew later: what the halves consisted of when they were made."""

    @property
    def role(self) -> str:
        """What the parameter does with the new units: "producer" or "consumer"."""
        return "producer" if self.state in PRODUCED else "consumer"

    def halves(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The halves of a tensor shaped like the parameter (a weight, a gradient, optimizer state), a row each.

        Right halves of opposite pairs change their sign, so that both are equal at the growth. Entries that later
        growths gave them are left out: each half got its own.
        """
        rows = tensor.detach()
        for axis, positions in self.entries:
            rows = rows.index_select(axis, torch.tensor(positions, device=rows.device))
        rows = rows.movedim(self.axis, 0).reshape(tensor.shape[self.axis], -1)
        left, right = (rows[torch.tensor(places, device=rows.device)] for places in (self.left, self.right))
        return left, -right if self.state == "odd" else right


@dataclass(frozen=True, slots=True)
class Change:
    """What one plan did to one tensor."""

    name: str
    new: tuple[int, ...]
    """Its shape afterwards."""
    axes: tuple[AxisGrowth, ...]
    inserted: bool
    """Whether it was not there before."""


def history(model: nn.Module) -> tuple[Plan, ...]:
    """The plans that made a model.

    Raises:
        UsageError: it does not remember any.
    """
    plans = tuple(model.meta.get("fxgrow", ())) if isinstance(model, fx.GraphModule) else ()
    if not plans:
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"{type(model).__name__} does not remember that it was grown",
            hint="pass the GraphModule that fxgrow returned, or a copy of it",
        )
    return plans


def changes(model: nn.Module) -> dict[str, list[Change]]:
    """What growths did to each parameter, in their order."""
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
    """Every pair in the parameters of a grown model, one entry for each growth, parameter and axis.

    Pairs of earlier growths are followed to where later ones moved them. A tied parameter is listed once.

    Raises:
        UsageError: the model does not remember that it was grown.
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
    """Units of one axis of a tensor that these changes have added, as positions in the model as it is now."""
    first = some[0]
    if first.inserted:
        return list(range(some[-1].new[axis]))
    layouts = _layouts(some, axis)
    old = set(_moved(range(len(old_positions(layouts[0]))), layouts)) if layouts else set(range(first.new[axis]))
    return sorted(set(range(some[-1].new[axis])) - old)


def _layouts(some: Sequence[Change], axis: int) -> list[Layout]:
    return [growth.layout for change in some for growth in change.axes if growth.axis == axis]


def _moved(positions: Iterable[int], layouts: Sequence[Layout]) -> list[int]:
    """Where units lie after some more growths."""
    found = list(positions)
    for layout in layouts:
        places = old_positions(layout)
        found = [places[k] for k in found]
    return found


def _pairs(layout: Layout) -> Iterator[tuple[list[int], list[int], str]]:
    """Positions of both halves, and what they are, for each growing set that comes in pairs."""
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
    """Originals and copies."""
    places = units(layout, number)
    left = [position for unit in leaf.source for position in places[unit]]
    return left, [position for unit in range(leaf.old, leaf.new) for position in places[unit]]
