"""Proofs for both modes: if a model runs different operators in training and evaluation mode, both are proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..analysis.analysis import OtherMode
from ..analysis.solver import DimsSolver
from ..dims.axis import Atom, Axis, Product, Sum, atoms, product
from ..errors import Kind
from .prove import prove
from .states import Assignment, Elsewhere, Failure, Place, Problem, Proof, State, Step


class Unlike(Exception):
    """The axes of a tensor have different structures in the two programs."""

    def __init__(self, node: str, text: str) -> None:
        super().__init__(f"{node}: {text}")
        self.node = node


def prove_in_modes(problem: Problem, assignment: Assignment) -> Proof | Failure:
    """Prove a growth with given states in both modes of a model, or return why it fails.

    The proof must succeed in evaluation mode. If it fails in training mode only, `eval_only` of the result names the
    operator, and `limited` the reason.

    Args:
        problem: the growth, with the other mode if the model runs other operators in it.
        assignment: the states of new units of all parameters and buffers.
    """
    proof = prove(problem.dims, problem.sizes, assignment)
    if isinstance(proof, Failure):
        return proof
    for other in problem.others:
        found = _elsewhere(problem, assignment, proof, other)
        if isinstance(found, Elsewhere):
            redrawn = tuple(dict.fromkeys((*proof.redrawn, *found.proof.redrawn)))
            claims = dict.fromkeys((*proof.eval_only, *found.proof.eval_only))
            only = tuple(node for node in claims if node not in redrawn)  # `redrawn` says it of both modes
            proof = replace(proof, eval_only=only, redrawn=redrawn, elsewhere=(*proof.elsewhere, found))
        elif other.training:
            step = Step(found.node, other.name, f"in evaluation mode only: {found.text}")
            only = tuple(dict.fromkeys((*proof.eval_only, found.node)))
            proof = replace(proof, steps=(*proof.steps, step), eval_only=only, limited=found.text)
        else:
            op = next((k for k, op in enumerate(problem.dims.program.ops) if op.node == found.node), 0)
            return Failure(found.kind, op, f"in evaluation mode {found.text}")
    return proof


@dataclass(frozen=True, slots=True)
class _Broken:
    kind: Kind
    node: str
    text: str


def _elsewhere(problem: Problem, assignment: Assignment, proof: Proof, other: OtherMode) -> Elsewhere | _Broken:
    """Return the proof in the program of the other mode, or why it fails."""
    if other.analysis is None:
        return _Broken(Kind.NO_PROOF, "the model", f"{other.name} does not run on the example inputs: {other.problem}")
    dims = other.analysis.volumes if problem.dims.adapt_skips else other.analysis.dims
    try:
        sizes, states = carried(problem.dims, problem.sizes, assignment, dims)
    except Unlike as error:
        return _Broken(Kind.NO_PROOF, error.node, str(error))
    found = prove(dims, sizes, states)
    if isinstance(found, Failure):
        ops = dims.program.ops
        return _Broken(found.kind, ops[found.op].node if 0 <= found.op < len(ops) else "the model", found.text)
    if scales_by_name(problem.dims, proof) != scales_by_name(dims, found):
        return _Broken(Kind.NO_PROOF, "the model", "normalisations would need different scales in the two modes")
    return Elsewhere(other, sizes, found)


def scales_by_name(dims: DimsSolver, proof: Proof) -> dict[tuple[str, ...], float]:
    """Return the factors by which a proof requires parameters to be multiplied, by the names of the parameters."""
    return {dims.program.values[k].names: scale for k, scale in (proof.scales or {}).items()}


_OF_OLD_UNITS = frozenset({State.COPY, State.SPLIT, State.MEAN})


def carried(
    dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment, other: DimsSolver
) -> tuple[dict[Atom, int], dict[Place, State]]:
    """Translate sizes and states from one program to another one, by the names of their parameters.

    Where the other program splits units into parts, the last part grows, so that new units come after the old ones.

    Args:
        dims: the axes of the program for which sizes and states are given.
        sizes: new sizes of the growing atoms.
        assignment: the states of new units.
        other: the axes of the other program.

    Raises:
        Unlike: the axes of a tensor have another structure in the other program, or may not grow there.
    """
    found: dict[Atom, int] = {}
    values = {}
    both = []
    for name, value in dims.program.parameters.items():
        there = other.program.parameters.get(name)
        if there is not None:
            values[value.index] = there.index
            lone = any(dims.algebra.size[atom.index] == 1 for atom in sizes)
            rows = (map(_without_ones, (d,) * len(v.shape), d.resolved(v)) for d, v in ((dims, value), (other, there)))
            pairs = zip(dims.resolved(value), other.resolved(there), strict=True) if lone else zip(*rows, strict=True)
            both += [(name, a, b) for a, b in pairs]
    for name, ours, theirs in both:
        for mine, atom in _pairs(name, ours, theirs, sizes):
            if atom.index in other.algebra.frozen:
                raise Unlike(name, f"its units may not grow: {other.algebra.frozen[atom.index].text}")
            part = other.algebra.size[atom.index] != dims.algebra.size[mine.index]
            if part and not _OF_OLD_UNITS.isdisjoint(assignment.values()):
                raise Unlike(name, "its channels are split differently")
            size = sizes[mine] + other.algebra.size[atom.index] - dims.algebra.size[mine.index]
            if found.setdefault(atom, size) != size:
                raise Unlike(name, "its units are tied to other units")
    for name, ours, theirs in both:
        if any(atom in found for atom in atoms(theirs)) and not any(atom in sizes for atom in atoms(ours)):
            raise Unlike(name, "its units are tied to others that grow")
    states = {replace(p, value=values[p.value]): state for p, state in assignment.items() if p.value in values}
    return found, states


def _without_ones(dims: DimsSolver, axis: Axis) -> Axis:
    """Return an axis without factors of size 1, which a view may add for some input sizes."""
    if not isinstance(axis, Product):
        return axis
    return product([factor for factor in axis.factors if dims.algebra.measure(factor) > 1])


def counterparts(dims: DimsSolver, sizes: Mapping[Atom, int], other: DimsSolver) -> dict[Atom, set[Atom]]:
    """Return for each atom of another program the growing atoms of this one that are the same units of a parameter.

    Raises:
        Unlike: the axes of a tensor have another structure in the other program.
    """
    found: dict[Atom, set[Atom]] = {}
    for name, value in dims.program.parameters.items():
        there = other.program.parameters.get(name)
        for ours, theirs in zip(dims.resolved(value), other.resolved(there) if there is not None else (), strict=False):
            for mine, atom in _pairs(name, _without_ones(dims, ours), _without_ones(other, theirs), sizes):
                found.setdefault(atom, set()).add(mine)
    return found


def _pairs(name: str, ours: Axis, theirs: Axis, sizes: Mapping[Atom, int]) -> Iterator[tuple[Atom, Atom]]:
    if isinstance(ours, Atom) and isinstance(theirs, Atom):
        if ours in sizes:
            yield ours, theirs
        return
    parts: tuple[tuple[Axis, ...], tuple[Axis, ...]] = ((), ())
    if isinstance(ours, Product) and isinstance(theirs, Product):
        parts = ours.factors, theirs.factors
    elif isinstance(ours, Sum) and isinstance(theirs, Sum):
        parts = ours.terms, theirs.terms
    elif isinstance(ours, Atom) and isinstance(theirs, Sum) and isinstance(theirs.terms[-1], Atom):
        parts = (ours,), theirs.terms[-1:]  # new units come after the old ones
    if parts[0] and len(parts[0]) == len(parts[1]):
        for a, b in zip(*parts, strict=True):
            yield from _pairs(name, a, b, sizes)
    elif any(a in sizes for a in atoms(ours)):
        raise Unlike(name, "its channels are split differently")
