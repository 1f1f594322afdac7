"""Recovers from the layouts in a plan what grows, and the states of its new units.

There is no search: the axes of each tensor say which sets of units its layout refers to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from operator import mul

from ..analysis.solver import DimsSolver
from ..capture.program.program import Value
from ..dims.axis import ONE, Atom, Axis, Product, Sum, factors_of
from ..planning.tensor_edits import LayoutBuilder
from ..plans import AxisGrowth, Chain, Grid, Layout, Leaf, Plan, TensorEdit, Woven
from ..plans.layout import leaves
from ..proof.occurrences import cells, indices_of
from ..proof.states import share_of
from ..schemes import Place, State


class Unread(Exception):
    """The axes of the model do not explain the layouts of the plan."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A growth in the form in which it was proved."""

    sizes: dict[Atom, int] = field(default_factory=dict)
    assignment: dict[Place, State] = field(default_factory=dict)
    copies: dict[Atom, tuple[int, ...]] = field(default_factory=dict)
    """For each set of units, the old units that its new units are copies of."""


def recover(plan: Plan, dims: DimsSolver) -> Recovered:
    """Recover the sizes, states and copy maps from a plan's tensors.

    Args:
        plan: one step, without the following ones.
        dims: the axes of the model.

    Raises:
        Unread: the layouts do not fit the axes, or contradict each other.
    """
    found = Recovered()
    edits = [(edit, _value(edit, dims)) for edit in plan.tensors]
    for edit, value in edits:
        axes = dims.resolved(value)
        for growth in edit.axes:
            try:
                pairs = list(_matched(dims, dims.algebra.resolve(axes[growth.axis]), growth.layout))
            except (ValueError, IndexError):  # the numbers of parts differ
                raise Unread(f"axis {growth.axis} of {edit.names[0]} has no such parts") from None
            for atom, leaf in pairs:
                _grow(found, dims, edit, atom, leaf)
    for atom in list(found.sizes):  # sets of units in no tensor grow in step with others
        for other in dims.algebra.in_step(atom):
            if found.sizes[atom] > dims.algebra.size[other.index]:
                found.sizes.setdefault(other, found.sizes[atom])
    _all_there(plan, dims, found)
    for edit, value in edits:
        for growth in edit.axes:
            _read(found, dims, edit, value, growth)
        if edit.scale != 1:
            found.assignment[share_of(value)] = State.SPLIT
    return found


def even(copies: Sequence[int], units: int) -> bool:
    """Whether each of some units is copied, and all equally often."""
    times = Counter(copies)
    return len(times) == units and len(set(times.values())) == 1


def _value(edit: TensorEdit, dims: DimsSolver) -> Value:
    known = dims.program.parameters
    value = next((known[name] for name in edit.names if name in known), None)
    if value is None:
        raise Unread(f"the graph does not use {edit.names[0]}")
    return value


def _grow(found: Recovered, dims: DimsSolver, edit: TensorEdit, atom: Atom, leaf: Leaf) -> None:
    """Record how much one set of units grows, and which units its new ones copy."""
    if atom.index in dims.algebra.frozen:
        raise Unread(f"units of {edit.names[0]} may not grow: {dims.algebra.frozen[atom.index].text}")
    if leaf.old != dims.algebra.size[atom.index]:
        raise Unread(f"{edit.names[0]} has {dims.algebra.size[atom.index]} units, not {leaf.old}")
    if found.sizes.setdefault(atom, leaf.new) != leaf.new:
        raise Unread(f"units of {edit.names[0]} grow to {leaf.new}, but to {found.sizes[atom]} elsewhere")
    if leaf.source and found.copies.setdefault(atom, leaf.source) != leaf.source:
        raise Unread(f"units of {edit.names[0]} copy other units than elsewhere")


def _all_there(plan: Plan, dims: DimsSolver, found: Recovered) -> None:
    said = Counter((g.old, g.new) for g in plan.growths)
    seen = Counter((dims.algebra.size[atom.index], new) for atom, new in found.sizes.items())
    if said != seen:
        raise Unread(f"units grow from {_some(seen - said)}, but the plan lists {_some(said - seen)}")


def _some(sizes: Counter[tuple[int, int]]) -> str:
    return ", ".join(f"{old} to {new}" for old, new in list(sizes)[:3]) or "none more"


@dataclass(frozen=True, slots=True)
class _Reader(LayoutBuilder):
    """Records the position of each growing set, instead of looking up its state."""

    apart: bool = False
    """Whether states differ between the values of index factors."""
    places: list[Place] = field(default_factory=list)

    def leaf(self, atom: Atom, value: int, axis: int, occurrence: int, index: int) -> Leaf:
        """Record the position of a set of units, and return a leaf without a state."""
        self.places.append(Place(value, axis, occurrence, index))
        return Leaf(self.dims.algebra.size[atom.index], self.sizes[atom], "")

    def _differ(self, value: int, at: int) -> bool:
        return self.apart


def _read(found: Recovered, dims: DimsSolver, edit: TensorEdit, value: Value, growth: AxisGrowth) -> None:
    """Record the states of one axis. States that differ between the values of an index factor are listed one by one."""
    axis = dims.resolved(value)[growth.axis]
    states = [State(leaf.state) for leaf in leaves(growth.layout)]
    told = indices_of(dims, found.sizes, axis)
    counts = [[len(cells(dims, index)) for index in occurrence] for occurrence in told]
    for apart in (False, True):
        reader = _Reader(dims, found.sizes, {}, {}, apart=apart)
        reader.layout(axis, value.index, growth.axis)
        if len(reader.places) == len(states):
            break
    else:
        raise Unread(f"axis {growth.axis} of {edit.names[0]} has a different number of growing sets")
    for place, state in zip(reader.places, states, strict=True):
        numbers = [place.index]
        if place.index < 0 and counts[place.occurrence]:  # one state for all
            numbers = list(range(prod(counts[place.occurrence])))
        for number in numbers:
            at = Place(place.value, place.axis, place.occurrence, number)
            if found.assignment.setdefault(at, state) is not state:
                raise Unread(f"units along axis {growth.axis} of {edit.names[0]} have two states")


def _matched(dims: DimsSolver, axis: Axis, layout: Layout) -> Iterator[tuple[Atom, Leaf]]:
    """Yield the atoms of an axis that grow, each with its part of the layout."""
    if isinstance(axis, Atom):
        if isinstance(layout, Leaf):
            yield axis, layout
    elif isinstance(axis, Sum) and isinstance(layout, Chain):
        for term, part in zip(axis.terms, layout.parts, strict=True):
            yield from _matched(dims, term, part)
    elif isinstance(axis, Product):
        yield from _in_row(dims, axis.factors, layout)


def _in_row(dims: DimsSolver, factors: Sequence[Axis], layout: Layout) -> Iterator[tuple[Atom, Leaf]]:
    """Yield the growing atoms of a product. A layout may spell one factor out: (g 3 d) as g ((d) + (d) + (d)), or
    woven."""
    parts = layout.parts if isinstance(layout, Grid) else (layout,)
    last = parts[-1] if parts else layout
    if isinstance(layout, Woven):
        sizes = list(accumulate(map(dims.algebra.measure, factors), mul, initial=1))
        cuts = [k for k, f in enumerate(factors) if len(cells(dims, f)) == len(layout.parts) and sizes[k] == layout.old]
        cut, front, rows = cuts[0], factors[: cuts[0]], layout.parts
    elif isinstance(last, Chain) and (len(parts) < len(factors) or not isinstance(factors[-1], Sum)):
        cut, front, rows = len(parts) - 1, (), last.parts
        for factor, part in zip(factors, parts[:-1], strict=False):
            yield from _matched(dims, factor, part)
    else:
        for factor, part in zip(factors, parts, strict=True):
            yield from _matched(dims, factor, part)
        return
    for cell, row in zip(cells(dims, factors[cut]), rows, strict=True):
        own = [factor for factor in factors_of(cell) if factor != ONE]
        yield from _in_row(dims, [*front, *own, *factors[cut + 1 :]], row)
