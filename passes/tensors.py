"""Tensor edits: every parameter and buffer that a growth changes, and how."""

from __future__ import annotations

from collections.abc import Mapping

from fxgrow.capture.program import Value
from fxgrow.dims.axis import Atom, Axis, Fixed, Product, Sum, atoms
from fxgrow.dims.solver import DimsSolver
from fxgrow.plan import AxisGrowth, Chain, Grid, Layout, Leaf, Still, TensorEdit
from fxgrow.plan.plan import grown_shape
from fxgrow.schemes import Assignment, Place, State

_WEIGHTS = ("linear", "embedding", "matmul", "mm", "bmm", "addmm", "einsum")


def layout_of(
    dims: DimsSolver, axis: Axis, sizes: Mapping[Atom, int], states: Mapping[int, str], start: int = 0
) -> tuple[Layout, int]:
    """An axis expression as a layout, with the state of each occurrence; and how many occurrences it holds."""
    match axis:
        case Atom(index):
            if axis in sizes:
                return Leaf(dims.algebra.size[index], sizes[axis], states[start]), 1
            return Still(dims.algebra.size[index]), 0
        case Fixed(size):
            return Still(size), 0
        case Product(parts) | Sum(parts):
            made: list[Layout] = []
            seen = 0
            for part in parts:
                layout, count = layout_of(dims, part, sizes, states, start + seen)
                made.append(layout)
                seen += count
            return (Grid(tuple(made)) if isinstance(axis, Product) else Chain(tuple(made))), seen


def tensor_edits(dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment) -> tuple[TensorEdit, ...]:
    """Every parameter and buffer that carries a growing atom."""
    edits: dict[int, TensorEdit] = {}
    for value in dims.program.parameters.values():
        if value.index in edits or not dims.carries(value, sizes.__contains__):
            continue
        growths = []
        for k, axis in enumerate(dims.resolved(value)):
            count = sum(a in sizes for a in atoms(axis))
            if count:
                # no state was chosen for a tensor of which only the shape is read
                states = {i: assignment.get(Place(value.index, k, i), State.EVEN).value for i in range(count)}
                growths.append(AxisGrowth(k, layout_of(dims, axis, sizes, states)[0]))
        axes = tuple(growths)
        shape = grown_shape(value.shape, axes)
        edits[value.index] = TensorEdit(
            value.names, value.shape, shape, axes, _fill(dims, value), _padding(dims, value)
        )
    return tuple(edits.values())


def _fill(dims: DimsSolver, value: Value) -> str:
    """Weights and their biases are drawn; vectors that scale or shift channels are taken from old units."""
    if sum(n > 1 for n in value.shape) > 1:
        return "weights"
    for op in dims.program.ops:
        name = op.name.removeprefix("aten::")
        if (name.startswith("conv") or name in _WEIGHTS) and value in op.inputs():
            return "weights"
    return "units"


def _padding(dims: DimsSolver, value: Value) -> tuple[int, ...]:
    """Rows that an embedding takes for padding."""
    rows = [
        op.args["padding_idx"]
        for op in dims.program.ops
        if op.name == "aten::embedding" and op.args["weight"] is value and op.args["padding_idx"] is not None
    ]
    return tuple(sorted({row for row in rows if row >= 0}))
