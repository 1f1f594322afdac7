"""Complex tensors and conversions between complex tensors and pairs of real ones."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Fixed
from ..errors import Kind
from .base import AxisContext, SameSizes, StateContext, register
from .pointwise import Unary, aligned, meet, operands


class ViewAsReal(SameSizes):
    """view_as_real: a new last axis holds the real and the imaginary part."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axes are those of the operand, and a last one of size 2."""
        d.set(op.outputs[0], [*d.of(op.args["self"]), Fixed(2)])

    def states(self, op: Op, s: StateContext) -> None:
        """Both parts of a unit have the state of the unit."""
        s.set(op.outputs[0], [*s.of(op.args["self"]), []])


class ViewAsComplex(SameSizes):
    """view_as_complex: the last axis holds the real and the imaginary part."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The last axis has two units and may not grow; the others are those of the operand."""
        axes = d.of(op.args["self"])
        d.freeze(axes[-1], Kind.FIXED, "it holds the real and the imaginary part")
        d.set(op.outputs[0], axes[:-1])

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a unit is the common state of both parts."""
        parts = s.axes(op.args["self"])[-1:]
        s.set(op.outputs[0], [[s.forget_index(x, parts) for x in row] for row in s.of(op.args["self"])[:-1]])


class Complex(SameSizes):
    """complex: the sum of a real tensor and an imaginary one."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Both parts share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a sum."""
        sums = [[s.add(op, leaf) for leaf in zip(*sides, strict=True)] for sides in aligned(op, s, operands(op))]
        s.set(op.outputs[0], sums)


class Polar(Complex):
    """polar: an absolute value times a function of an angle."""

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a product."""
        s.set(
            op.outputs[0],
            [
                [
                    s.mul(op, [length, s.map_units(op, [angle], odd=False, zero=False)])
                    for length, angle in zip(*sides, strict=True)
                ]
                for sides in aligned(op, s, operands(op))
            ],
        )


register(ViewAsReal(), "view_as_real")
register(ViewAsComplex(), "view_as_complex")
register(Unary(odd=True, zero=True, linear=True), "imag")
register(Complex(), "complex")
register(Polar(), "polar")
