"""New units that nothing reads: no result depends on them, so that no gradient would ever reach them."""

from __future__ import annotations

from collections.abc import Iterable

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Value
from ..dims.axis import Atom, atoms
from ..errors import Kind
from .states import Failure, Problem, Proof

_TEXT = "nothing reads the units that would be added, and no gradient would ever reach them"
_HINT = "read more of its result in forward"


def read(dims: DimsSolver, summing: Iterable[Op]) -> set[Atom]:
    """Units over which something is summed.

    Args:
        dims: the axes.
        summing: operators of which a proof has seen that they sum, or adapt a skip path: units that do not come out of
            them are read there.
    """
    found = set(dims.summed)
    for op in summing:
        found |= _held(dims, op.inputs()) - _held(dims, op.outputs)
    return found


def unread(problem: Problem, proof: Proof) -> Failure | None:
    """Whether some of the units of a growth are read nowhere, in no mode of the model."""
    if problem.sizes.keys() <= proof.read:
        return None
    if proof.limited or any(there.proof.read & there.sizes.keys() for there in proof.elsewhere):
        return None
    dims = problem.dims
    for group in _sets(problem):
        if not group & proof.read:
            first = next(k for k, op in enumerate(dims.program.ops) if group & _held(dims, op.outputs))
            return Failure(Kind.DEAD, first, _TEXT, _HINT)
    return None


def _sets(problem: Problem) -> list[set[Atom]]:
    """Growing units in sets that grow in step, or are parts of one axis: it will do if one of each is read."""
    resolve, groups = problem.dims.algebra.resolve, {atom: {atom} for atom in problem.sizes}
    axes = {axis for axes in problem.dims.axes.values() for axis in map(resolve, axes)}
    bonds = [
        *map(atoms, axes),
        *((a for axis in tie for a in atoms(resolve(axis))) for tie in problem.dims.algebra.ties),
    ]
    for bond in bonds:
        some = [atom for atom in bond if atom in groups]
        for atom in some[1:]:
            first, other = groups[some[0]], groups[atom]
            if other is not first:
                first |= other
                groups.update(dict.fromkeys(other, first))
    return list({id(group): group for group in groups.values()}.values())


def _held(dims: DimsSolver, values: Iterable[Value]) -> set[Atom]:
    return {atom for value in values for axis in dims.resolved(value) for atom in atoms(axis)}
