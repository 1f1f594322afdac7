"""Sums, differences, products and quotients of tensors."""

from __future__ import annotations

from ..capture.program.program import Op, Value
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, StateContext, normal_dims, register
from .domains import NOT_ZERO
from .pointwise import Unary, aligned, inside, meet, operands


class Add(SameSizes):
    """add, sub, rsub: sums and differences. The sum of two computed tensors is a residual join."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes; with skip="reshape" a join keeps the channels of the skip path apart."""
        values = operands(op)
        both = all(isinstance(op.args.get(name), Value) for name in ("self", "other"))
        if len(values) == 2 and both and d.join(op, ("self", "other")):
            return
        d.set(op.outputs[0], meet(op, d, values))

    def states(self, op: Op, s: StateContext) -> None:
        """The state of the sum; a number is the same for all units."""
        values = operands(op)
        other = op.args.get("other")
        number = isinstance(other, int | float | complex) and other != 0
        apart = s.kept_apart(op)
        if apart is not None:
            skip, at = apart
            out = s.of(next(v for v in values if v is not skip))
            for k, states in enumerate(s.of(skip)):
                if k == at:  # an adapter passes r(left) - r(right), and adds missing channels as zeros or copies
                    for state in states:
                        s.adapt(op, state)
                    out[k] = [s.add(op, [state, s.missing(op, state)]) for state in out[k]]
                else:
                    out[k] = [s.add(op, pair) for pair in zip(out[k], states, strict=True)]
            s.set(op.outputs[0], out)
            return
        out = []
        for sides in aligned(op, s, values):
            rows = [*sides, [s.same] * len(sides[0])] if number else sides
            out.append([s.add(op, leaf) for leaf in zip(*rows, strict=True)])
        for k in _centred(op, s):
            out[k] = [s.centre(op, state) for state in s.of(op.args["self"])[k]]
        s.set(op.outputs[0], out)


def _centred(op: Op, s: StateContext) -> list[int]:
    """Return the axes over which a tensor is centred: x - x.mean(axes, keepdim=True)."""
    if op.name not in ("aten::sub", "aten::subtract") or op.args.get("alpha") != 1:
        return []
    made = s.maker(op.args["other"]) if isinstance(op.args["other"], Value) else None
    x = op.args["self"]
    mean = made is not None and made.name == "aten::mean" and made.args["self"] is x and made.args.get("keepdim")
    return normal_dims(made.args["dim"], len(x.shape)) if made is not None and mean else []


class Multiply(SameSizes):
    """mul: products, in which states multiply like signs, and zero times any state is zero."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: StateContext) -> None:
        """The state of the product; a factor without the axis is the same for all units."""
        out: AxisStates = [
            [s.mul(op, leaf) for leaf in zip(*sides, strict=True)] for sides in aligned(op, s, operands(op))
        ]
        s.set(op.outputs[0], out)


class Cross(Multiply):
    """linalg_cross: each entry of the result is a difference of two products, over an axis of three entries."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes; the axis of the three entries may not grow."""
        for value in operands(op):
            d.freeze(d.of(value)[op.args["dim"]], Kind.INDEX, "a cross product selects its three entries by index")
        super().dims(op, d)

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a product, in which each entry of one operand is multiplied by other entries of the other."""
        values = operands(op)
        over = [s.axes(value)[op.args["dim"]] for value in values]
        out: AxisStates = []
        for sides in aligned(op, s, values):
            rows = [[s.forget_index(state, over) for state in side] for side in sides]
            out.append([s.mul(op, leaf) for leaf in zip(*rows, strict=True)])
        s.set(op.outputs[0], out)


class Divide(Multiply):
    """div: quotients. The divisor must not be zero, so its new units must not be odd: an odd unit without a partner is
    zero."""

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a product with the reciprocal."""
        if op.args.get("rounding_mode") is not None:
            Unary(unsafe="other").states(op, s)
            return
        values = operands(op)
        below = op.args.get("other")
        out: AxisStates = []
        for sides in aligned(op, s, values):
            rows = []
            for value, states in zip(values, sides, strict=True):
                if value is below:
                    states = [s.require(op, x, even=True, why="it is a divisor") for x in states]
                    states = inside(op, s, value, states)
                rows.append(states)
            out.append([s.mul(op, leaf) for leaf in zip(*rows, strict=True)])
        s.set(op.outputs[0], out)


class Addcmul(SameSizes):
    """addcmul: self + value * tensor1 * tensor2; addcdiv: self + value * tensor1 / tensor2."""

    by_index = False  # its operands hold several indices

    def __init__(self, *, divides: bool = False) -> None:
        self.divides = divides

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: StateContext) -> None:
        """The state of a product, then of a sum."""
        out: AxisStates = []
        for first, second, third in aligned(op, s, operands(op)):
            if self.divides:
                third = [s.require(op, x, even=True, why="it is a divisor") for x in third]
                third = [s.within(op, x, op.args["tensor2"], NOT_ZERO) for x in third]
            leaves = zip(first, second, third, strict=True)
            out.append([s.add(op, [a, s.mul(op, [b, c])]) for a, b, c in leaves])
        s.set(op.outputs[0], out)


register(Add(), "add", "sub", "subtract", "rsub")
register(Multiply(), "mul", "multiply")
register(Cross(), "linalg_cross")
register(Divide(), "div", "divide", "true_divide")
register(Addcmul(), "addcmul")
register(Addcmul(divides=True), "addcdiv")
