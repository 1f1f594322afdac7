"""unfold, im2col and col2im: windows as separate units, and their sum as an image."""

from __future__ import annotations

from math import prod

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed, product
from ..errors import Kind
from .base import AxisContext, SameSizes, StateContext, normal_dims, register
from .norm import each


class Unfold(SameSizes):
    """Tensor.unfold: an axis is replaced by windows over it, whose units are a new last axis."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis of the windows may not grow; the others are those of the operand."""
        axes, out = d.of(op.args["self"]), op.outputs[0]
        for at in normal_dims(op.args["dimension"], len(axes)):
            d.freeze(axes[at], Kind.WINDOW, "windows run over it")
            axes[at] = Fixed(out.shape[at])
        d.set(out, [*axes, Fixed(out.shape[-1])])

    def states(self, op: Op, s: StateContext) -> None:
        """Along the other axes the states are those of the operand."""
        x = op.args["self"]
        over = [s.axes(x)[at] for at in normal_dims(op.args["dimension"], len(x.shape))]
        s.set(op.outputs[0], [*([s.forget_index(state, over) for state in row] for row in s.of(x)), []])


class Im2Col(SameSizes):
    """im2col, as in F.unfold: n c h w -> n (c k) l, for l windows of k positions."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Spatial axes become the second factor k of the columns and the axis l of windows, and may not grow."""
        axes = d.of(op.args["self"])
        for axis in axes[-2:]:
            d.freeze(axis, Kind.WINDOW, "windows run over it")
        columns: Axis = product([d.algebra.resolve(axes[-3]), Fixed(prod(op.args["kernel_size"]))])
        d.set(op.outputs[0], [*axes[:-3], columns, Fixed(op.outputs[0].shape[-1])])

    def states(self, op: Op, s: StateContext) -> None:
        """The result is a linear function of each channel."""
        rows, over = s.of(op.args["self"]), s.axes(op.args["self"])[-2:]
        planes = [[s.forget_index(state, over) for state in row] for row in rows[:-2]]
        s.set(op.outputs[0], [*each(op, s, planes, odd=True, zero=True, linear=True), []])


class Col2Im(SameSizes):
    """col2im, as in F.fold: n (c k) l -> n c h w, the sum of overlapping windows."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The second factor k of the columns and the axis l of windows become spatial axes, and may not grow."""
        x, out = op.args["self"], op.outputs[0]
        axes = d.of(x)
        kernel = prod(op.args["kernel_size"])
        channels, places = d.algebra.split(axes[-2], (x.shape[-2] // kernel, kernel))
        for axis in (places, axes[-1]):
            d.freeze(axis, Kind.WINDOW, "it becomes a spatial axis")
        d.set(out, [*axes[:-2], channels, *(Fixed(n) for n in out.shape[-2:])])

    def states(self, op: Op, s: StateContext) -> None:
        """The result is a linear function of the windows of each channel."""
        x = op.args["self"]
        rows, over = s.of(x), s.axes(x)[-1:]
        columns = [[s.forget_index(state, over) for state in row] for row in rows[:-1]]
        s.set(op.outputs[0], [*each(op, s, columns, odd=True, zero=True, linear=True), [], []])


register(Unfold(), "unfold")
register(Im2Col(), "im2col")
register(Col2Im(), "col2im")
