"""Functions of batches of matrices: triangles, diagonals, determinants and inverses; and pairwise distances."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .axis_ops import Along
from .base import AxisContext, AxisStates, SameSizes, StateContext, broadcast, normal, register
from .norm import each, mixed
from .pointwise import aligned
from .reduce import Reduce

MATRIX = (-2, -1)
"""The dimensions of the matrices in a batch."""


class Determinant(Reduce):
    """det, logdet, slogdet: one number, or a sign and a number, for each matrix."""

    def __init__(self, *, unsafe: bool) -> None:
        """`unsafe`: whether the result for a matrix of zeros is infinite."""
        super().__init__(linear=False, zero=not unsafe)
        self.unsafe = unsafe

    def _over(self, op: Op) -> list[int]:
        rank = len(next(op.inputs()).shape)
        return [rank - 2, rank - 1]

    def states(self, op: Op, s: StateContext) -> None:
        """Along batch axes the result is a function of each matrix."""
        if self.unsafe:
            required(op, s)
        super().states(op, s)


class Inverse(Along):
    """inverse: one matrix for each matrix of a batch, none of which may be zero."""

    def __init__(self) -> None:
        super().__init__(MATRIX, Kind.STATISTIC, "each entry of the result depends on all units of it")

    def states(self, op: Op, s: StateContext) -> None:
        """Along batch axes the result is a function of each matrix."""
        required(op, s)
        super().states(op, s)


def required(op: Op, s: StateContext) -> None:
    """Require that no new matrix is zero."""
    for row in s.of(next(op.inputs())):
        for state in row:
            s.require(op, state, even=True, why="the function is singular at zero")


class Diagonal(SameSizes):
    """diagonal: two axes become one, which holds the entries with equal indices."""

    by_index = True

    def _over(self, op: Op) -> list[int]:
        rank = len(op.args["self"].shape)
        return [normal(op.args[name], rank) for name in ("dim1", "dim2")]

    def dims(self, op: Op, d: AxisContext) -> None:
        """Both axes may not grow; the others are those of the operand."""
        axes, over = d.of(op.args["self"]), self._over(op)
        for at in over:
            d.freeze(axes[at], Kind.INDEX, "its units are selected by index")
        kept = [axis for k, axis in enumerate(axes) if k not in over]
        d.set(op.outputs[0], [*kept, Fixed(op.outputs[0].shape[-1])])

    def states(self, op: Op, s: StateContext) -> None:
        """Along the other axes the states are those of the operand."""
        rows, over = s.of(op.args["self"]), self._over(op)
        chosen = [s.axes(op.args["self"])[at] for at in over]
        kept = [[s.forget_index(state, chosen) for state in row] for k, row in enumerate(rows) if k not in over]
        s.set(op.outputs[0], [*kept, []])


class DiagEmbed(SameSizes):
    """diag_embed: the last axis becomes the diagonal of matrices that are zero elsewhere."""

    by_index = True

    def _at(self, op: Op) -> list[int]:
        rank = len(op.outputs[0].shape)
        return sorted(normal(op.args[name], rank) for name in ("dim1", "dim2"))

    def dims(self, op: Op, d: AxisContext) -> None:
        """The last axis may not grow; the others are those of the operand."""
        axes, out = d.of(op.args["self"]), op.outputs[0]
        d.freeze(axes[-1], Kind.INDEX, "its units become a diagonal")
        result = axes[:-1]
        for at in self._at(op):
            result.insert(at, Fixed(out.shape[at]))
        d.set(out, result)

    def states(self, op: Op, s: StateContext) -> None:
        """Along the other axes the states are those of the operand."""
        placed = s.axes(op.args["self"])[-1:]
        rows = [[s.forget_index(state, placed) for state in row] for row in s.of(op.args["self"])[:-1]]
        for at in self._at(op):
            rows.insert(at, [])
        s.set(op.outputs[0], rows)


class Distances(SameSizes):
    """cdist: ... n c, ... m c -> ... n m, the norms of all pairwise differences."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share the axis over which norms are taken; the result has both axes of points."""
        x, y = op.args["x1"], op.args["x2"]
        ours, theirs = d.of(x), d.of(y)
        size = d.unify(ours[-1], theirs[-1])
        if op.args["p"] < 1:
            d.freeze(size, Kind.STATISTIC, "a statistic is taken over the whole axis")
        batch: list[Axis] = []
        for k in range(len(op.outputs[0].shape), 2, -1):
            sides = [(r[-k], v.shape[-k]) for r, v in ((ours, x), (theirs, y)) if len(r) >= k]
            batch.append(broadcast(d, sides))
        d.set(op.outputs[0], [*batch, ours[-2], theirs[-2]])

    def states(self, op: Op, s: StateContext) -> None:
        """Along the axes of points the result is a function of each point; along the axis of the norm new differences
        must leave the norm unchanged."""
        x, y = op.args["x1"], op.args["x2"]
        over = [s.axes(v)[-1] for v in (x, y)]
        ours, theirs = ([[s.forget_index(state, over) for state in row] for row in s.of(v)] for v in (x, y))
        for pair in zip(ours[-1], theirs[-1], strict=True):
            s.mix(op, s.add(op, pair), mixed(op, s, over[:1], kind="norm", order=float(op.args["p"])))
        *batch, _, _ = aligned(op, s, [x, y])
        rows: AxisStates = [
            [s.map_units(op, leaf, odd=False, zero=True, homogeneous=True) for leaf in zip(*sides, strict=True)]
            for sides in batch
        ]
        points = each(op, s, [ours[-2], theirs[-2]], odd=False, zero=False)
        s.set(op.outputs[0], [*rows, *points])


register(Along(MATRIX, Kind.INDEX, "its units are kept or zeroed by position", linear=True), "tril", "triu")
register(Reduce(linear=True, zero=True, kind=Kind.INDEX), "trace")
register(Determinant(unsafe=False), "det", "linalg_det")
register(Determinant(unsafe=True), "logdet", "slogdet", "linalg_slogdet")
register(Inverse(), "inverse", "linalg_inv")
register(Along(MATRIX, Kind.STATISTIC, "each entry of the result depends on all units of it"), "linalg_matrix_exp")
register(Diagonal(), "diagonal")
register(DiagEmbed(), "diag_embed")
register(Distances(), "cdist")
