"""Reductions: sums, means, variances, norms, extrema and others."""

from __future__ import annotations

import torch

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, normal_dims, register
from .norm import mixed
from .pointwise import Unary


class Reduce(SameSizes):
    """A reduction over the argument `dim`.

    Args:
        linear: it is linear, as a sum, so that opposite units stay opposite along the other axes.
        zero: it is zero for zeros.
        homogeneous: it is multiplied by c > 0 if its operand is.
        sums: it is a sum, which may be taken over a growing axis if the new units vanish in it. Otherwise reduced axes
            may not grow.
        kind: the reason why reduced axes may not grow.
    """

    by_index = True

    def __init__(
        self, *, linear: bool, zero: bool, homogeneous: bool = False, sums: bool = False, kind: Kind = Kind.STATISTIC
    ) -> None:
        self.linear, self.zero, self.homogeneous, self.sums, self.kind = linear, zero, homogeneous, sums, kind

    def _over(self, op: Op) -> list[int]:
        return normal_dims(op.args.get("dim"), len(next(op.inputs()).shape))

    def _scales(self, op: Op) -> bool:
        return self.homogeneous

    def dims(self, op: Op, d: AxisContext) -> None:
        """Reduced axes are removed, or have size 1."""
        x = next(op.inputs())
        axes, over = d.of(x), self._over(op)
        for k in over:
            self._over_axis(op, d, axes[k])
        for out in op.outputs:
            keep = len(out.shape) == len(axes)
            d.set(out, [Fixed(1) if k in over else axis for k, axis in enumerate(axes) if keep or k not in over])

    def _over_axis(self, op: Op, d: AxisContext, axis: Axis) -> None:
        if self.sums:
            d.contract(op, axis)
        else:
            d.freeze(axis, self.kind, "a statistic is taken over the whole axis")

    def _over_units(self, op: Op, s: StateContext, states: list[State]) -> None:
        for state in states:
            s.contract(op, [state])

    def states(self, op: Op, s: StateContext) -> None:
        """Along other axes the result is a function of each unit's own slice; new units must vanish in a sum."""
        x = next(op.inputs())
        operand, axes, over = s.of(x), s.axes(x), self._over(op)
        self._over_units(op, s, [state for k in over for state in operand[k]])
        for out in op.outputs:
            keep = len(out.shape) == len(operand)
            rows: AxisStates = []
            for k, states in enumerate(operand):
                if k in over:
                    rows.extend([[]] if keep else [])
                else:
                    number = out.dtype.is_floating_point or out.dtype.is_complex  # indices among zeros are arbitrary
                    how = {"zero": self.zero and number, "homogeneous": self._scales(op) and number}
                    states = [s.forget_index(y, [axes[i] for i in over]) for y in states]
                    rows.append([s.map_units(op, [y], odd=self.linear, linear=self.linear, **how) for y in states])
            s.set(out, rows)


class Statistic(Reduce):
    """A mean, a variance, a norm or an extremum, which some states of new units preserve, some of them with another
    factor or correction (see `StateContext.mix`).

    `family`: "mean", "variance" (var, std, var_mean and std_mean), "norm" or "extremum" (also all and any), which does
    not depend on the number of equal units.
    """

    def __init__(self, family: str, *, zero: bool = True, homogeneous: bool = False) -> None:
        super().__init__(linear=family == "mean", zero=zero, homogeneous=homogeneous)
        self.family = family

    def dims(self, op: Op, d: AxisContext) -> None:
        """Reduced axes are removed. They may not grow if indices of extrema are used, which differ among copies."""
        if any(d.read(out) for out in op.outputs if out.dtype is torch.int64 and next(op.inputs()).dtype != out.dtype):
            axes = d.of(next(op.inputs()))
            for k in self._over(op):
                d.freeze(axes[k], self.kind, "a statistic is taken over the whole axis")
        super().dims(op, d)

    def _order(self, op: Op) -> float:
        """Return the order of a norm; 0 if it is neither a p-norm with p >= 1 nor a maximum."""
        order = op.args.get("ord", op.args.get("p"))
        if op.name == "aten::linalg_norm" and order is not None and len(self._over(op)) > 1:
            return 0  # a matrix norm
        order = 2 if order is None else order
        return order if isinstance(order, int | float) and order >= 1 else 0

    def _scales(self, op: Op) -> bool:
        """Return whether it is homogeneous: norms of order other than 0, and standard deviations."""
        counts = self.family == "norm" and op.args.get("ord", op.args.get("p")) == 0
        return op.name in ("aten::std", "aten::std_mean") or (self.homogeneous and not counts)

    def _correction(self, op: Op) -> float:
        args = op.args
        given = args.get("correction") if "correction" in args else args.get("unbiased", True)
        return 1 if given is None else float(given)

    def _over_axis(self, op: Op, d: AxisContext, axis: Axis) -> None:
        if self.family == "norm" and not self._order(op):
            super()._over_axis(op, d, axis)

    def _over_units(self, op: Op, s: StateContext, states: list[State]) -> None:
        if states:
            axes = s.axes(next(op.inputs()))
            over = [axes[k] for k in self._over(op)]
            order = self._order(op) if self.family == "norm" else 2
            mixing = mixed(op, s, over, kind=self.family, correction=self._correction(op), order=order)
            s.mix(op, s.merge(op, states), mixing)


class Extremum(Statistic):
    """max and min: over an axis, or of two tensors."""

    def __init__(self) -> None:
        super().__init__("extremum", homogeneous=True)

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axes of a pointwise operator for two tensors, otherwise those of a reduction."""
        if "other" in op.args:
            Unary().dims(op, d)
        else:
            super().dims(op, d)

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a pointwise operator for two tensors, otherwise those of a reduction."""
        if "other" in op.args:
            Unary(zero=True, homogeneous=True).states(op, s)
        else:
            super().states(op, s)


register(Reduce(linear=True, zero=True, sums=True), "sum")
register(Statistic("mean"), "mean")
register(Statistic("variance"), "var", "std", "var_mean", "std_mean")
register(Statistic("norm", homogeneous=True), "norm", "linalg_vector_norm", "linalg_norm")
register(Statistic("extremum", homogeneous=True), "amax", "amin", "aminmax")
register(Statistic("extremum", zero=False), "all", "any")
register(Reduce(linear=False, zero=True, homogeneous=True), "median", "mode")
register(Reduce(linear=True, zero=True), "nanmean", "nansum")
register(Reduce(linear=False, zero=True, homogeneous=True), "nanmedian", "kthvalue")
register(Reduce(linear=False, zero=True), "prod")
register(Extremum(), "max", "min")
register(Reduce(linear=False, zero=False), "logsumexp", "argmax", "argmin", "count_nonzero")
