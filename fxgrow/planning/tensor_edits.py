"""Compute the edits of every parameter and buffer that a growth changes."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

from ..analysis.solver import DimsSolver
from ..dims.axis import ONE, Atom, Axis, Fixed, Product, Sum, atoms, factors_of
from ..plans import AxisGrowth, Chain, Grid, Layout, Leaf, Still, TensorEdit, Woven
from ..plans.plan import grown_shape
from ..proof.drawn import is_drawn, weights
from ..proof.occurrences import cells, indices_of
from ..schemes import Assignment, Place, Proof, State

Part = tuple[Axis, int]
"""A part of an axis, and the index of the first occurrence of a growing atom in it."""
Picked = Mapping[Axis, int]
"""The selected cell of each index factor."""


@dataclass(frozen=True, slots=True)
class Home:
    """The axis of a tensor that a layout is built for; `told` holds the index factors of each occurrence's states."""

    value: int
    axis: int
    told: Sequence[tuple[Axis, ...]]


@dataclass(frozen=True, slots=True)
class LayoutBuilder:
    """A builder of layouts, which say what the new entries of a tensor are: from new sizes, states and copy maps."""

    dims: DimsSolver
    sizes: Mapping[Atom, int]
    assignment: Assignment
    sources: Mapping[Atom, tuple[int, ...]]
    default: State = State.EVEN
    """The state of tensors for which no state was chosen, because only their shape is read."""
    indexed: frozenset[tuple[int, int]] = field(init=False, repr=False)
    """Axes, as (value, axis), whose states depend on an index factor."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "indexed", _indexed(self.assignment))

    def leaf(self, atom: Atom, value: int, axis: int, occurrence: int, index: int) -> Leaf:
        """Return the leaf of a layout for one growing set of units in one axis of one tensor."""
        # the assignment has one state for all indices (-1), or one for each
        places = (Place(value, axis, occurrence, n) for n in (index, -1, 0))
        state = next((self.assignment[place] for place in places if place in self.assignment), self.default)
        source = self.sources.get(atom, ()) if state in (State.COPY, State.SPLIT) else ()
        return Leaf(self.dims.algebra.size[atom.index], self.sizes[atom], state.value, source)

    def layout(self, axis: Axis, value: int, at: int) -> tuple[Layout, int]:
        """Return the layout of an axis, with the state of each occurrence, and the number of occurrences in it."""
        count = sum(atom in self.sizes for atom in atoms(axis))
        told = indices_of(self.dims, self.sizes, axis) if self._differ(value, at) else [()] * count
        return self._made((axis, 0), Home(value, at, told), {}), count

    def _made(self, part: Part, home: Home, picked: Picked) -> Layout:
        """Return the layout of a part of an axis, for the selected cells of index factors."""
        axis, start = part
        match axis:
            case Atom(index):
                return self._leaf(axis, start, home, picked) if axis in self.sizes else Still(self._size[index])
            case Fixed(size):
                return Still(size)
            case Product(factors):
                return self._row(self._counted(factors, start), home, picked)
            case Sum(terms):
                return Chain(tuple(self._made(term, home, picked) for term in self._counted(terms, start)))

    @property
    def _size(self) -> Sequence[int]:
        return self.dims.algebra.size

    def _leaf(self, atom: Atom, occurrence: int, home: Home, picked: Picked) -> Leaf:
        """Return the leaf of one occurrence of an atom, for the selected cells of index factors."""
        number = 0
        for index in home.told[occurrence]:
            number = number * len(cells(self.dims, index)) + picked[index]
        return self.leaf(atom, home.value, home.axis, occurrence, number if home.told[occurrence] else -1)

    def _counted(self, parts: Sequence[Axis], start: int) -> list[Part]:
        """Return the parts of an axis, each with the index of its first occurrence."""
        counts = (sum(atom in self.sizes for atom in atoms(part)) for part in parts)
        return list(zip(parts, accumulate(counts, initial=start), strict=False))

    def _row(self, row: list[Part], home: Home, picked: Picked) -> Layout:
        """Return the layout of a product.

        It is split along a factor if states differ by the cells of that factor: (3 h d) into (h d) + (h d) + (h d).
        """
        told = {axis for index in home.told for axis in index}
        cut = next((k for k, (factor, _) in enumerate(row) if factor in told and factor not in picked), None)
        if cut is None:
            return Grid(tuple(self._made(part, home, picked) for part in row))
        factor, start = row[cut]
        left, right, rows = row[:cut], row[cut + 1 :], []
        before, after = (prod(self.dims.algebra.measure(axis, n) for axis, _ in left) for n in (None, self.sizes))
        grows = before != after
        for n, (cell, first) in enumerate(self._counted(cells(self.dims, factor), start)):
            own = self._counted([f for f in factors_of(cell) if f != ONE], first)
            rows.append(self._row([*(left if grows else ()), *own, *right], home, {**picked, factor: n}))
        if grows:
            return Woven(tuple(rows), before, after)
        front = tuple(self._made(part, home, picked) for part in left)
        return Grid((*front, Chain(tuple(rows)))) if front else Chain(tuple(rows))

    def _differ(self, value: int, at: int) -> bool:
        """Return whether the states of an axis depend on an index factor."""
        return (value, at) in self.indexed


def _indexed(assignment: Assignment) -> frozenset[tuple[int, int]]:
    """Return the axes, as (value, axis), that have several states for one occurrence."""
    by_place: dict[tuple[int, int, int], set[State]] = {}
    for place, state in assignment.items():
        if place.index >= 0:
            by_place.setdefault((place.value, place.axis, place.occurrence), set()).add(state)
    return frozenset((value, axis) for (value, axis, _), states in by_place.items() if len(states) > 1)


def copy_maps(
    dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment, uniform: Collection[Atom], seed: int
) -> dict[Atom, tuple[int, ...]]:
    """Return, for each atom, the old unit that each new unit copies; empty if no state is a copy.

    Units are drawn at random, or cycled for atoms in `uniform`. The draws depend on the seed and on the name of the
    first parameter that carries the atom, not on the other atoms.
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
    dims: DimsSolver,
    sizes: Mapping[Atom, int],
    assignment: Assignment,
    proof: Proof,
    sources: Mapping[Atom, tuple[int, ...]],
) -> tuple[TensorEdit, ...]:
    """Return the edits of every parameter and buffer that grows or is rescaled; `sources` holds the copy maps."""
    blocks = LayoutBuilder(dims, sizes, assignment, sources)
    scales = proof.scales or {}
    among, rows = weights(dims), _padding(dims)
    edits: dict[int, TensorEdit] = {}
    for value in dims.program.parameters.values():
        grows = dims.carries(value, sizes.__contains__)
        if value.index in edits or not (grows or value.index in scales):
            continue
        axes = tuple(
            AxisGrowth(k, blocks.layout(axis, value.index, k)[0])
            for k, axis in enumerate(dims.resolved(value))
            if any(a in sizes for a in atoms(axis))
        )
        shape = grown_shape(value.shape, axes)
        fill = "weights" if is_drawn(dims, value, among) else "units"
        padding = tuple(sorted(rows.get(value.index, ())))
        edits[value.index] = TensorEdit(
            value.names, value.shape, shape, axes, fill, padding, scales.get(value.index, 1.0)
        )
    return tuple(edits.values())


def _padding(dims: DimsSolver) -> dict[int, set[int]]:
    """Return the padding rows of embedding weights, by index of the weight."""
    rows: dict[int, set[int]] = {}
    for op in dims.program.ops:
        padding = op.args.get("padding_idx") if op.name.startswith("aten::embedding") else None
        if padding is not None and padding >= 0:
            rows.setdefault(op.args["weight"].index, set()).add(padding)
    return rows
