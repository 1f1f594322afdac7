"""Tensor edits: every parameter and buffer that a growth changes, and how."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fxgrow.dims.axis import Atom, Axis, Fixed, Product, Sum, atoms
from fxgrow.dims.solver import DimsSolver
from fxgrow.plan import AxisGrowth, Chain, Grid, Layout, Leaf, Still, TensorEdit
from fxgrow.plan.plan import grown_shape
from fxgrow.schemes import Assignment, Place, Proof, State
from fxgrow.schemes.occurrences import index_factor

_WEIGHTS = ("linear", "embedding", "matmul", "mm", "bmm", "addmm", "einsum")


@dataclass(frozen=True, slots=True)
class Blocks:
    """What new blocks hold: new sizes, states, and where copies come from."""

    dims: DimsSolver
    sizes: Mapping[Atom, int]
    assignment: Assignment
    sources: Mapping[Atom, tuple[int, ...]]
    default: State = State.EVEN
    """Of tensors for which none was chosen, because only their shape is read."""

    def leaf(self, atom: Atom, value: int, axis: int, occurrence: int, index: int) -> Leaf:
        """One growing set of units in one axis of one tensor."""
        # one state for all indices, or one for each
        places = (Place(value, axis, occurrence, n) for n in (index, -1, 0))
        state = next((self.assignment[place] for place in places if place in self.assignment), self.default)
        source = self.sources.get(atom, ()) if state in (State.COPY, State.SPLIT) else ()
        return Leaf(self.dims.algebra.size[atom.index], self.sizes[atom], state.value, source)

    def layout(self, axis: Axis, value: int, at: int, start: int = 0, index: int = -1) -> tuple[Layout, int]:
        """An axis expression as a layout, with the state of each occurrence; and how many occurrences it holds."""
        match axis:
            case Atom():
                if axis in self.sizes:
                    return self.leaf(axis, value, at, start, index), 1
                return Still(self.dims.algebra.size[axis.index]), 0
            case Fixed(size):
                return Still(size), 0
            case Product(parts):
                factor = index_factor(self.dims, axis) if index < 0 else None
                if factor is not None and self._differ(value, at):
                    return self._by_index(parts, factor[0], value, at, start)
                made, seen = self._row(parts, value, at, start, index)
                return Grid(made), seen
            case Sum(parts):
                made, seen = self._row(parts, value, at, start, index)
                return Chain(made), seen

    def _row(
        self, parts: Sequence[Axis], value: int, at: int, start: int, index: int
    ) -> tuple[tuple[Layout, ...], int]:
        made: list[Layout] = []
        seen = 0
        for part in parts:
            layout, count = self.layout(part, value, at, start + seen, index)
            made.append(layout)
            seen += count
        return tuple(made), seen

    def _differ(self, value: int, at: int) -> bool:
        """Whether states are told apart by an index factor."""
        by_place: dict[int, set[State]] = {}
        for place, state in self.assignment.items():
            if place.value == value and place.axis == at and place.index >= 0:
                by_place.setdefault(place.occurrence, set()).add(state)
        return any(len(states) > 1 for states in by_place.values())

    def _by_index(self, parts: Sequence[Axis], factor: Atom, value: int, at: int, start: int) -> tuple[Layout, int]:
        """(3 h d) as (h d) + (h d) + (h d)."""
        cut = parts.index(factor)
        before, left = self._row(parts[:cut], value, at, start, -1)
        terms: list[Layout] = []
        right = 0
        for n in range(self.dims.algebra.size[factor.index]):
            rest, right = self._row(parts[cut + 1 :], value, at, start + left, n)
            terms.append(Grid(rest))
        chain = Chain(tuple(terms))
        return (Grid((*before, chain)) if before else chain), left + right


def copy_maps(
    dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment, uniform: Collection[Atom], seed: int
) -> dict[Atom, tuple[int, ...]]:
    """For each atom the old units that its new ones are copies of: at random, or all equally often where they must.

    Depends on the seed and on the name of the first parameter that carries the atom.
    """
    if not any(state in (State.COPY, State.SPLIT) for state in assignment.values()):
        return {}
    names: dict[Atom, str] = {}
    for value in dims.program.parameters.values():
        for k, axis in enumerate(dims.resolved(value)):
            for i, atom in enumerate(atoms(axis)):
                names.setdefault(atom, f"{value.names[0]} {k} {i}")
    maps = {}
    for atom, new in sizes.items():
        old = dims.algebra.size[atom.index]
        if atom in uniform:
            maps[atom] = tuple(unit % old for unit in range(new - old))
        else:
            stream = random.Random(f"{seed} copies {names.get(atom, '')}")
            maps[atom] = tuple(stream.randrange(old) for _ in range(new - old))
    return maps


def tensor_edits(
    dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment, proof: Proof, seed: int
) -> tuple[TensorEdit, ...]:
    """Every parameter and buffer that carries a growing atom."""
    blocks = Blocks(dims, sizes, assignment, copy_maps(dims, sizes, assignment, proof.uniform, seed))
    scales = proof.scales or {}
    weights, rows = _roles(dims)
    edits: dict[int, TensorEdit] = {}
    for value in dims.program.parameters.values():
        if value.index in edits or not dims.carries(value, sizes.__contains__):
            continue
        axes = tuple(
            AxisGrowth(k, blocks.layout(axis, value.index, k)[0])
            for k, axis in enumerate(dims.resolved(value))
            if any(a in sizes for a in atoms(axis))
        )
        shape = grown_shape(value.shape, axes)
        drawn = sum(n > 1 for n in value.shape) > 1 or value.index in weights
        fill = "weights" if drawn and value.index not in dims.program.buffers else "units"
        padding = tuple(sorted(rows.get(value.index, ())))
        edits[value.index] = TensorEdit(
            value.names, value.shape, shape, axes, fill, padding, scales.get(value.index, 1.0)
        )
    return tuple(edits.values())


def _roles(dims: DimsSolver) -> tuple[set[int], dict[int, set[int]]]:
    """Which values are weights or their biases, which are drawn (vectors that scale or shift channels are taken from
    old units instead), and which rows embeddings take for padding."""
    weights: set[int] = set()
    rows: dict[int, set[int]] = {}
    for op in dims.program.ops:
        name = op.name.removeprefix("aten::")
        if name.startswith("conv") or name in _WEIGHTS:
            weights.update(value.index for value in op.inputs())
        padding = op.args.get("padding_idx") if name.startswith("embedding") else None
        if padding is not None and padding >= 0:
            rows.setdefault(op.args["weight"].index, set()).add(padding)
    return weights, rows
