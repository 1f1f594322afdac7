"""Operators along an axis: softmax, cumulative sums, sorting, flips, differences, Fourier transforms."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Fixed
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, StateContext, normal, normal_dims, register
from .norm import each, mixed

_WHOLE = "mixes all units of the axis"
_MOVE = "its units are reordered"


class Along(SameSizes):
    """An operator that mixes the units of some axes and keeps all axes: softmax, cumulative sums, flips, sorting.

    `dim` is the name of the argument that holds these axes, or the axes themselves; `kind` and `text` are the reason
    why they may not grow. `linear`, `zero` and `homogeneous` describe the operator as a function of the slice of one
    unit along another axis (see `StateContext.map_units`).
    """

    by_index = True

    def __init__(
        self,
        dim: str | tuple[int, ...],
        kind: Kind,
        text: str,
        *,
        linear: bool = False,
        zero: bool = False,
        homogeneous: bool = False,
    ) -> None:
        self.dim, self.kind, self.text = dim, kind, text
        self.linear, self.zero, self.homogeneous = linear, zero or linear, homogeneous

    def _over(self, op: Op) -> list[int]:
        dims = op.args.get(self.dim) if isinstance(self.dim, str) else self.dim
        return normal_dims(dims, len(next(op.inputs()).shape))

    def dims(self, op: Op, d: AxisContext) -> None:
        """Axes along which the operator works may not grow; the others are those of the input."""
        x = next(op.inputs())
        axes = d.of(x)
        for at in self._over(op):
            d.freeze(axes[at], self.kind, self.text)
        for out in op.outputs:
            d.set(
                out, [axis if size == n else Fixed(n) for axis, size, n in zip(axes, x.shape, out.shape, strict=True)]
            )

    def states(self, op: Op, s: StateContext) -> None:
        """Along other axes the result is a function of each unit's own slice."""
        x = next(op.inputs())
        over = [s.axes(x)[at] for at in self._over(op)]
        rows = [[s.forget_index(state, over) for state in states] for states in s.of(x)]
        for out in op.outputs:
            number = out.dtype.is_floating_point or out.dtype.is_complex  # indices of sorted zeros are arbitrary
            how = {"zero": self.zero and number, "homogeneous": self.homogeneous and number}
            s.set(out, each(op, s, rows, odd=self.linear, linear=self.linear, **how))


class Fourier(Along):
    """fft_fft and the other Fourier transforms: linear, along one or several axes, whose sizes may change."""

    def __init__(self, dim: str) -> None:
        super().__init__(dim, Kind.STATISTIC, _WHOLE, linear=True)

    def _over(self, op: Op) -> list[int]:
        """If sizes are given without axes, they are those of the last axes."""
        sizes = op.args.get("s")
        if op.args.get(str(self.dim)) is None and sizes is not None:
            return normal_dims(list(range(-len(sizes), 0)), len(op.args["self"].shape))
        return super()._over(op)


class Differences(SameSizes):
    """diff: differences of neighbouring units along one axis, before and after which other tensors may be attached."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis of the differences may not grow; all operands share the other axes."""
        out, rows = op.outputs[0], [d.of(value) for value in op.inputs()]
        at = normal(op.args["dim"], len(out.shape))
        for row in rows:
            d.freeze(row[at], Kind.WINDOW, "differences of neighbours are taken over it")
        axes = rows[0]
        for row in rows[1:]:
            axes = [axis if k == at else d.unify(axis, row[k]) for k, axis in enumerate(axes)]
        axes[at] = Fixed(out.shape[at])
        d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Along other axes the result is a linear function of each unit's own slice."""
        at = normal(op.args["dim"], len(op.outputs[0].shape))
        values = list(op.inputs())
        over = [s.axes(value)[at] for value in values]
        rows = [[[s.forget_index(x, over) for x in row] for row in s.of(value)] for value in values]
        out: AxisStates = []
        for sides in zip(*rows, strict=True):
            leaves = [s.add(op, leaf) if len(leaf) > 1 else leaf[0] for leaf in zip(*sides, strict=True)]
            out.append([s.map_units(op, [x], odd=True, zero=True, linear=True) for x in leaves])
        out[at] = []
        s.set(op.outputs[0], out)


class Softmax(SameSizes):
    """softmax: the units of the axis sum to one; along other axes the result is a function of each unit's own slice."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axes are those of the input. Growing the softmax axis is possible with some states only."""
        d.set(op.outputs[0], d.of(op.args["self"]))

    def states(self, op: Op, s: StateContext) -> None:
        """Along the axis copies are divided among themselves (a state "split"); see `StateContext.mix`."""
        x = op.args["self"]
        rows, axes = s.of(x), s.axes(x)
        at = normal(op.args["dim"], len(axes)) if axes else 0
        others = [[s.forget_index(state, axes[at : at + 1]) for state in states] for states in rows]
        out = each(op, s, others, odd=False, zero=False)
        for k in range(at, at + bool(axes)):
            mixing = mixed(op, s, [axes[k]])
            out[k] = [s.mix(op, state, mixing) for state in rows[k]]
        s.set(op.outputs[0], out)


register(Softmax(), "softmax", "_softmax")
register(Along("dim", Kind.SOFTMAX, "a softmax over the whole axis"), "log_softmax")
register(Along("dim", Kind.STATISTIC, _WHOLE, linear=True), "cumsum")
register(Along("dim", Kind.STATISTIC, _WHOLE, zero=True), "cumprod")
register(Along("dim", Kind.STATISTIC, _WHOLE, zero=True, homogeneous=True), "cummax", "cummin", "sort", "topk")
register(Along((0,), Kind.STATISTIC, _WHOLE, zero=True, homogeneous=True), "msort")
register(Along("dim", Kind.STATISTIC, _WHOLE), "argsort", "logcumsumexp")
register(Along("dims", Kind.INDEX, _MOVE, linear=True), "flip", "roll", "rot90")
register(Along("dim", Kind.INDEX, _MOVE, linear=True), "fft_fftshift", "fft_ifftshift")
register(Along((1,), Kind.INDEX, _MOVE, linear=True), "fliplr")
register(Along((0,), Kind.INDEX, _MOVE, linear=True), "flipud")
for _name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    register(Fourier("dim"), f"fft_{_name}", f"fft_{_name}2", f"fft_{_name}n")
register(Differences(), "diff")
