"""Operators that mix the units of an axis and keep it: softmax, cumulative sums, sorting, flips."""

from __future__ import annotations

from ...capture.program import Op
from ...errors import Kind
from ..axis import Fixed
from .base import Dims, Flow, SameSizes, normal, normal_dims, register
from .norm import each, mixed


class Along(SameSizes):
    """An operator that mixes the units of some axes and keeps all axes: softmax, cumulative sums, flips, sorting.

    `linear`, `zero`, `homogeneous`: what it is as a function of another axis's unit, of which it sees a whole slice.
    """

    by_index = True

    def __init__(
        self, dim: str, kind: Kind, text: str, *, linear: bool = False, zero: bool = False, homogeneous: bool = False
    ) -> None:
        self.dim, self.kind, self.text = dim, kind, text
        self.linear, self.zero, self.homogeneous = linear, zero or linear, homogeneous

    def _over(self, op: Op) -> list[int]:
        return normal_dims(op.args.get(self.dim), len(next(op.inputs()).shape))

    def dims(self, op: Op, d: Dims) -> None:
        """A barrier over these axes; the others pass."""
        x = next(op.inputs())
        axes = d.of(x)
        for at in self._over(op):
            d.freeze(axes[at], self.kind, self.text)
        for out in op.outputs:
            d.set(
                out, [axis if size == n else Fixed(n) for axis, size, n in zip(axes, x.shape, out.shape, strict=True)]
            )

    def states(self, op: Op, s: Flow) -> None:
        """Along other axes it is a function of each unit's own slice."""
        x = next(op.inputs())
        over = [s.axes(x)[at] for at in self._over(op)]
        marks = [[s.blurred(state, over) for state in states] for states in s.of(x)]
        for out in op.outputs:
            number = out.dtype.is_floating_point  # the places of sorted zeros are any
            how = {"zero": self.zero and number, "homogeneous": self.homogeneous and number}
            s.set(out, each(op, s, marks, odd=self.linear, linear=self.linear, **how))


class Softmax(SameSizes):
    """softmax: units of the axis share one; along other axes it is a function of each unit's own slice."""

    by_index = True

    def dims(self, op: Op, d: Dims) -> None:
        """All axes pass; which states may grow along the axis is a matter of the scheme."""
        d.set(op.outputs[0], d.of(op.args["self"]))

    def states(self, op: Op, s: Flow) -> None:
        """Copies share what their original had."""
        x = op.args["self"]
        marks, axes = s.of(x), s.axes(x)
        at = normal(op.args["dim"], len(axes)) if axes else 0
        others = [[s.blurred(state, axes[at : at + 1]) for state in states] for states in marks]
        out = each(op, s, others, odd=False, zero=False)
        for k in range(at, at + bool(axes)):
            mixing = mixed(op, s, [axes[k]])
            out[k] = [s.mix(op, state, mixing) for state in marks[k]]
        s.set(op.outputs[0], out)


_WHOLE = "mixes all units of the axis"
register(Softmax(), "softmax", "_softmax")
register(Along("dim", Kind.SOFTMAX, "a softmax over the whole axis"), "log_softmax")
register(Along("dim", Kind.STATISTIC, _WHOLE, linear=True), "cumsum")
register(Along("dim", Kind.STATISTIC, _WHOLE, zero=True), "cumprod")
register(Along("dim", Kind.STATISTIC, _WHOLE, zero=True, homogeneous=True), "cummax", "cummin", "sort")
register(Along("dim", Kind.STATISTIC, _WHOLE), "argsort", "logcumsumexp")
register(Along("dims", Kind.INDEX, "its units change places", linear=True), "flip", "roll")
