"""Reductions: sums and means over other axes keep the halves; over a growing axis only a sum can be proved."""

from __future__ import annotations

from ...capture.program import Op
from ...errors import Kind
from ..axis import Fixed
from .base import Dims, Flow, Marks, SameSizes, normal_dims, register
from .pointwise import Unary


class Reduce(SameSizes):
    """A reduction over `dim`.

    `linear`: a sum or mean, so opposite halves stay opposite. `sums`: over a growing axis it is a contraction without
    a weight, so opposite halves cancel there; a mean would divide by the new count, an extremum looks at every unit.
    """

    def __init__(self, *, linear: bool, zero: bool, sums: bool = False, kind: Kind = Kind.STATISTIC) -> None:
        self.linear, self.zero, self.sums, self.kind = linear, zero, sums, kind

    def _over(self, op: Op) -> list[int]:
        return normal_dims(op.args.get("dim"), len(next(op.inputs()).shape))

    def dims(self, op: Op, d: Dims) -> None:
        """Reduced axes go, or stay as one unit."""
        x = next(op.inputs())
        axes, over = d.of(x), self._over(op)
        for k in over:
            if self.sums:
                d.contract(op, axes[k])
            else:
                d.freeze(axes[k], self.kind, "a statistic is taken over the whole axis")
        for out in op.outputs:
            keep = len(out.shape) == len(axes)
            d.set(out, [Fixed(1) if k in over else axis for k, axis in enumerate(axes) if keep or k not in over])

    def states(self, op: Op, s: Flow) -> None:
        """A function of each unit's own slice; summed units must vanish."""
        x = next(op.inputs())
        marks, over = s.of(x), self._over(op)
        for k in over:
            for state in marks[k]:
                s.contract(op, [state])
        for out in op.outputs:
            keep = len(out.shape) == len(marks)
            rows: Marks = []
            for k, states in enumerate(marks):
                if k in over:
                    rows.extend([[]] if keep else [])
                else:
                    zero = self.zero and out.dtype.is_floating_point  # the place of an extremum among zeros is any
                    rows.append([s.apply(op, [y], odd=self.linear, zero=zero, linear=self.linear) for y in states])
            s.set(out, rows)


class Extremum(Reduce):
    """max and min: over an axis, or of two tensors."""

    def __init__(self) -> None:
        super().__init__(linear=False, zero=True)

    def dims(self, op: Op, d: Dims) -> None:
        """Of two tensors they are pointwise."""
        if "other" in op.args:
            Unary().dims(op, d)
        else:
            super().dims(op, d)

    def states(self, op: Op, s: Flow) -> None:
        """Of two tensors they are pointwise."""
        if "other" in op.args:
            Unary(zero=True).states(op, s)
        else:
            super().states(op, s)


register(Reduce(linear=True, zero=True, sums=True), "sum")
register(Reduce(linear=True, zero=True), "mean", "nanmean", "nansum")
register(Reduce(linear=False, zero=True), "amax", "amin", "median", "mode", "prod", "std", "var", "aminmax")
register(Extremum(), "max", "min")
register(Reduce(linear=False, zero=True), "norm", "linalg_vector_norm", "var_mean", "std_mean")
register(Reduce(linear=False, zero=False), "logsumexp", "argmax", "argmin", "all", "any", "count_nonzero")
