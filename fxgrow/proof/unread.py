"""New units that no operator uses: no result depends on them, so they would never get a gradient."""

from __future__ import annotations

from collections.abc import Iterable

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Value
from ..dims.axis import Atom, atoms
from ..errors import Kind
from .states import Failure, Problem, Proof

_TEXT = "no operator uses the units that would be added, so no gradient would ever reach them"
_HINT = "use more of its result in forward"


def read(dims: DimsSolver, summing: Iterable[Op]) -> set[Atom]:
    """Return the atoms over which some operator sums.

    Args:
        dims: the axes.
        summing: operators that sum or adapt a skip path according to a proof: they use the atoms that their operands
            have and their results lack.
    """
    found = set(dims.summed)
    for op in summing:
        found |= _held(dims, op.inputs()) - _held(dims, op.outputs)
    return found


def unread(problem: Problem, proof: Proof) -> Failure | None:
    """Return a failure if some of the growing atoms are not used in any mode of the model, otherwise None."""
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
    """Return sets of growing atoms that are tied or are parts of one axis; it is enough if one of each set is used."""
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
