"""Follows a model through the plans that grew it, and returns the positions of the old units of each node and tensor.

The growths are repeated on a copy without data; each intermediate model is analysed, and the layouts of the plan say
which of its axes grew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis, analyse
from ..analysis.solver import DimsSolver
from ..capture.inputs.call import Call
from ..capture.lowering.lowering import Lowering
from ..capture.program.program import Value
from ..capture.program.trees import leaves as values_in
from ..dims.axis import ONE, Atom, Axis, Product, Sum, factors_of
from ..plans import Chain, Grid, Layout, Leaf, Plan, Woven
from ..plans.layout import old_positions, size
from ..proof.occurrences import cells
from ..rewrite import apply
from ..rewrite.apply import sketch
from .old_units import Places, as_before, layout_of, ways

Found = dict[str, tuple[Places, ...]]
"""For each node, the positions of the old units in each tensor that it returns."""


class Lost(Exception):
    """The plans do not explain the model."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The positions of the old units in a grown model."""

    nodes: Found
    tensors: dict[str, Places]
    """Parameters and buffers that the graph uses, under every name."""


def openings(plan: Plan) -> Plan:
    """Return the part of a plan that decomposes attention."""
    return replace(plan, tensors=(), modules=(), nodes=(), skips=(), inserts=(), then=())


def follow(before: fx.GraphModule, history: Sequence[Plan], inputs: Sequence[Any] | Call) -> Followed:
    """Follow a model through plans, in their order.

    Raises:
        Lost: a plan does not fit the model that the plans before it made.
    """
    model, lowering = sketch(before), Lowering()
    given = (inputs if isinstance(inputs, Call) else Call(tuple(inputs))).on("meta")
    nodes: Found | None = None
    tensors: dict[str, Places] = {}
    for plan in history:
        if plan.openings:
            model = apply(openings(plan), model, inplace=True, checked=True)
        analysis = analyse(model, given, lowering=lowering)
        step_nodes, step_tensors = _step(model, plan, analysis)
        kept = {n: p for n, p in step_nodes.items() if nodes is None or n in nodes}
        nodes = kept if nodes is None else {n: _then(nodes[n], p) for n, p in kept.items()}
        tensors = {n: tensors[n].then(p) if n in tensors else p for n, p in step_tensors.items()}
        model = apply(replace(plan, openings=(), then=()), model, inplace=True, checked=True)
    return Followed(nodes or {}, tensors)


def _then(now: tuple[Places, ...], later: tuple[Places, ...]) -> tuple[Places, ...]:
    if len(now) != len(later):
        raise Lost("a node returns a different number of tensors than before")
    return tuple(a.then(b) for a, b in zip(now, later, strict=True))


def _step(model: fx.GraphModule, plan: Plan, analysis: Analysis) -> tuple[Found, dict[str, Places]]:
    """Return where one plan puts the old units of every node and tensor of the model that it was made for."""
    dims, growing = _growing(plan, analysis) if plan.growths else (analysis.dims, {})
    known: dict[Axis, tuple[Layout, Any]] = {}

    def layout(axis: Axis) -> tuple[Layout, Any]:
        if axis not in known:
            made = layout_of(axis, growing, dims.algebra.size)
            known[axis] = made, ways(made) if size(made, new=True) != size(made, new=False) else ()
        return known[axis]

    def places(value: Value) -> Places:
        if value.index not in dims.axes or not growing:
            return as_before(value.shape)
        found = [layout(axis) for axis in dims.resolved(value)]
        return Places(tuple(size(made, new=True) for made, _ in found), tuple(how for _, how in found))

    program = analysis.program
    scales = {name: edit.scale for edit in plan.tensors for name in edit.names}
    nodes = {name: tuple(map(places, values_in(tree))) for name, tree in program.results.items()}
    for node in model.graph.nodes:
        if node.op == "get_attr" and str(node.target) in scales and node.name in nodes:
            nodes[node.name] = tuple(replace(p, scale=scales[str(node.target)]) for p in nodes[node.name])
    tensors = {name: replace(places(value), scale=scales.get(name, 1.0)) for name, value in program.parameters.items()}
    if not plan.growths:  # an edit that belongs to an inserted block, not to growing units
        tensors |= {
            name: Places(edit.new, tuple(_edited(edit.axes, k) for k in range(len(edit.new))))
            for edit in plan.tensors
            for name in edit.names
        }
    return nodes, tensors


def _edited(axes: Sequence[Any], axis: int) -> tuple[Any, ...]:
    return next((ways(growth.layout) for growth in axes if growth.axis == axis), ())


def _growing(plan: Plan, analysis: Analysis) -> tuple[DimsSolver, dict[Atom, Leaf]]:
    """Return the sets of units that a plan grew, in the first axis analysis ("dims" or "volumes") that explains the
    plan."""
    kinds = ("volumes", "dims") if plan.skips else ("dims", "volumes")
    for kind in kinds:
        dims: DimsSolver = getattr(analysis, kind)
        growing: dict[Atom, Leaf] = {}
        for axis, layout in _grown_axes(plan, dims):
            for atom, leaf in _matched(dims, dims.algebra.resolve(axis), layout):
                if leaf.source or atom not in growing:
                    growing[atom] = leaf
        if growing and _explained(plan, dims, growing):
            return dims, growing
    raise Lost("the axes of the model do not explain the tensors of the plan")


def _grown_axes(plan: Plan, dims: DimsSolver) -> Iterator[tuple[Axis, Layout]]:
    for edit in plan.tensors:
        value = dims.program.parameters.get(edit.names[0])
        if value is None:
            raise Lost(f"the graph does not use {edit.names[0]}")
        axes = dims.resolved(value)
        yield from ((axes[growth.axis], growth.layout) for growth in edit.axes)


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


def _explained(plan: Plan, dims: DimsSolver, growing: Mapping[Atom, Leaf]) -> bool:
    """Whether exactly the tensors of the plan grow, each along the axes and by the layouts of the plan."""
    edits = {name: {g.axis: g.layout for g in edit.axes} for edit in plan.tensors for name in edit.names}
    for name, value in dims.program.parameters.items():
        for k, axis in enumerate(dims.resolved(value)):
            made = layout_of(axis, growing, dims.algebra.size)
            planned = edits.get(name, {}).get(k)
            if planned is None:
                if size(made, new=True) != size(made, new=False):
                    return False
            elif size(made, new=True) != size(planned, new=True) or old_positions(made) != old_positions(planned):
                return False
    return True
