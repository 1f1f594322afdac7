"""Pointwise operators: every unit is treated alike and by itself; operands are broadcast against each other."""

from __future__ import annotations

from collections.abc import Iterable

from ...capture.program import Op, Value
from ..axis import Axis
from .base import Dims, Flow, Marks, SameSizes, State, broadcast, register


def operands(op: Op) -> list[Value]:
    """The tensor operands, in schema order."""
    return list(op.inputs())


def meet(op: Op, d: Dims, values: list[Value]) -> list[Axis]:
    """The axes of a broadcast result."""
    rows = [d.of(v) for v in values]
    if len(values) == 1:
        return rows[0]
    out = op.outputs[0]
    axes: list[Axis] = []
    for k in range(len(out.shape), 0, -1):
        sides = [(r[-k], v.shape[-k]) for r, v in zip(rows, values, strict=True) if len(r) >= k]
        axes.append(broadcast(d, sides))
    return axes


def aligned(op: Op, s: Flow, values: list[Value]) -> Iterable[list[list[State]]]:
    """For each axis of the result, the states that the operands bring; one that lacks the axis is even along it."""
    rows = [s.of(v) for v in values]
    rank = len(op.outputs[0].shape)
    for k in range(rank, 0, -1):
        some = [r[-k] if len(r) >= k else [] for r in rows]
        width = max(map(len, some), default=0)
        yield [states if len(states) == width else [s.even] * width for states in some]


def is_number(arg: object) -> bool:
    """A plain number that takes part in the arithmetic."""
    return isinstance(arg, int | float | complex) and not isinstance(arg, bool)


class Unary(SameSizes):
    """A function of one operand; `odd`: f(-x) = -f(x), `zero`: f(0) = 0."""

    def __init__(self, *, odd: bool = False, zero: bool = False) -> None:
        self.odd, self.zero = odd, zero

    def dims(self, op: Op, d: Dims) -> None:
        """The axes stay."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: Flow) -> None:
        """Equal halves stay equal; opposite ones only under an odd function."""
        odd, zero = self.odd, self.zero
        out: Marks = []
        for sides in aligned(op, s, operands(op)):
            leaves = zip(*sides, strict=True)
            out.append([s.apply(op, leaf, odd=odd, zero=zero) for leaf in leaves])
        s.set(op.outputs[0], out)


class UnsafeAtZero(Unary):
    """A function whose value or slope is infinite at zero: no block of zeros may enter."""

    def states(self, op: Op, s: Flow) -> None:
        """Equal halves stay equal."""
        out: Marks = []
        for sides in aligned(op, s, operands(op)):
            leaves = zip(
                *([s.require(op, x, even=False, why="it is singular at zero") for x in r] for r in sides), strict=True
            )
            out.append([s.apply(op, leaf, odd=False, zero=False) for leaf in leaves])
        s.set(op.outputs[0], out)


class Clamp(Unary):
    """Clamping to [low, high]: keeps zero if zero lies within, odd if the interval is symmetric."""

    def __init__(self, low: str, high: str) -> None:
        super().__init__()
        self.low, self.high = low, high

    def states(self, op: Op, s: Flow) -> None:
        """Depends on the interval."""
        low, high = op.args.get(self.low), op.args.get(self.high)
        numbers = all(x is None or is_number(x) for x in (low, high))
        zero = numbers and (low is None or low <= 0) and (high is None or high >= 0)
        odd = numbers and low is not None and high is not None and low == -high
        Unary(odd=odd, zero=zero).states(op, s)


class Power(Unary):
    """x ** p: odd for odd whole p, keeps zero for p > 0."""

    def states(self, op: Op, s: Flow) -> None:
        """Depends on a constant exponent."""
        exponent = op.args.get("exponent")
        number = float(exponent) if isinstance(exponent, int | float) else 0.0
        Unary(odd=number > 0 and number % 2 == 1, zero=number >= 1).states(op, s)


class Add(SameSizes):
    """Sums and differences. Where two volumes meet, it is a residual join."""

    def dims(self, op: Op, d: Dims) -> None:
        """Operands share their axes; under skip="reshape" a join keeps the skip's channels apart."""
        values = operands(op)
        if len(values) == 2 and d.join(op, ("self", "other")):
            return
        d.set(op.outputs[0], meet(op, d, values))

    def states(self, op: Op, s: Flow) -> None:
        """Halves of one parity add up; a constant is even."""
        values = operands(op)
        number = is_number(op.args.get("other")) and op.args["other"] != 0
        apart = s.kept_apart(op)
        if apart is not None:
            skip, at = apart
            out = s.of(next(v for v in values if v is not skip))
            for k, states in enumerate(s.of(skip)):
                if k == at:  # an adapter lets r(left) - r(right) through, and zeros for channels that are missing
                    for state in states:
                        s.require(op, state, even=True, why="r(left) - r(right) must vanish")
                    out[k] = [s.add(op, [state, s.zero]) for state in out[k]]
                else:
                    out[k] = [s.add(op, pair) for pair in zip(out[k], states, strict=True)]
            s.set(op.outputs[0], out)
            return
        out = []
        for sides in aligned(op, s, values):
            rows = [*sides, [s.even] * len(sides[0])] if number else sides
            out.append([s.add(op, leaf) for leaf in zip(*rows, strict=True)])
        s.set(op.outputs[0], out)


class Multiply(SameSizes):
    """Products: parities multiply as signs do, and zero wins."""

    def dims(self, op: Op, d: Dims) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: Flow) -> None:
        """A factor that lacks the axis is even along it."""
        out: Marks = [[s.mul(op, leaf) for leaf in zip(*sides, strict=True)] for sides in aligned(op, s, operands(op))]
        s.set(op.outputs[0], out)


class Divide(Multiply):
    """Quotients: 1/y is odd, and no zero may come below the line."""

    def states(self, op: Op, s: Flow) -> None:
        """As a product with the reciprocal."""
        if op.args.get("rounding_mode") is not None:
            Unary().states(op, s)
            return
        values = operands(op)
        below = op.args.get("other")
        out: Marks = []
        for sides in aligned(op, s, values):
            rows = []
            for value, states in zip(values, sides, strict=True):
                if value is below:
                    states = [s.require(op, x, even=False, why="it is divided by") for x in states]
                rows.append(states)
            out.append([s.mul(op, leaf) for leaf in zip(*rows, strict=True)])
        s.set(op.outputs[0], out)


class PRelu(SameSizes):
    """prelu: one slope for all, or one for each channel (axis 1)."""

    def dims(self, op: Op, d: Dims) -> None:
        """The slopes lie along axis 1."""
        x, slope = op.args["self"], op.args["weight"]
        axes = d.of(x)
        if slope.shape and slope.shape[0] > 1:
            at = 1 if len(axes) > 1 else 0
            axes[at] = d.unify(axes[at], d.of(slope)[0])
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: Flow) -> None:
        """Equal halves need equal slopes."""
        out = s.of(op.args["self"])
        slopes = s.of(op.args["weight"])
        at = 1 if len(out) > 1 else 0
        for k, states in enumerate(out):
            new = [s.apply(op, [x], odd=False, zero=True) for x in states]
            if k == at and slopes and len(slopes[0]) == len(states):
                for slope in slopes[0]:
                    s.require(op, slope, even=True, why="halves need one slope")
            out[k] = new
        s.set(op.outputs[0], out)


_NEITHER = """acos acosh angle arccos arccosh bitwise_not cos cosh digamma erfc exp exp2 hardsigmoid i0 isfinite isinf
    isnan isneginf isposinf lgamma log_sigmoid logical_not mvlgamma polygamma
    sigmoid signbit sinc softplus special_bessel_j0 special_bessel_j1 special_digamma special_erfc special_erfcx
    special_exp2 special_expit special_gammaln special_i0 special_i0e special_i1e special_log_ndtr special_logit
    special_ndtr special_ndtri special_psi special_sinc threshold
    addcdiv atan2 arctan2 bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift
    copysign eq ne gt ge lt le fmod remainder floor_divide float_power fmax fmin gcd lcm
    heaviside hypot igamma igammac ldexp lerp logaddexp logaddexp2 logical_and logical_or logical_xor masked_fill
    maximum minimum nextafter where xlogy special_xlogy special_xlog1py special_zeta greater greater_equal less
    less_equal not_equal __and__ __or__ __xor__ bool int long isclose __lshift__ __rshift__ frexp"""


class Addcmul(SameSizes):
    """self + value * tensor1 * tensor2."""

    def dims(self, op: Op, d: Dims) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: Flow) -> None:
        """A product, then a sum."""
        out: Marks = []
        for first, second, third in aligned(op, s, operands(op)):
            leaves = zip(first, second, third, strict=True)
            out.append([s.add(op, [a, s.mul(op, [b, c])]) for a, b, c in leaves])
        s.set(op.outputs[0], out)


_LINEAR = """neg negative positive clone detach alias contiguous to _to_copy type_as float double half lift lift_fresh
    lift_fresh_copy deg2rad rad2deg real conj _conj resolve_conj resolve_neg conj_physical cdouble bfloat16 cpu cuda
    asin asinh atan atanh erf erfinv sin sinh tan tanh sign sgn trunc frac round fix hardshrink softshrink
    special_erfinv special_i1 special_round arcsin arcsinh arctan arctanh"""
_KEEPS_ZERO = """relu relu6 hardswish silu mish gelu selu square expm1 log1p ceil floor leaky_relu elu celu
    special_expm1 special_log1p abs absolute nan_to_num """

register(Unary(odd=True, zero=True), *_LINEAR.split())
register(Unary(zero=True), *_KEEPS_ZERO.split())
register(Unary(), *_NEITHER.split())
register(UnsafeAtZero(), "sqrt", "rsqrt", "reciprocal", "log", "log2", "log10", "logit", "special_entr")
register(Clamp("min", "max"), "clamp", "clip")
register(Clamp("min", "none"), "clamp_min")
register(Clamp("none", "max"), "clamp_max")
register(Clamp("min_val", "max_val"), "hardtanh")
register(Power(), "pow")
register(Add(), "add", "sub", "subtract", "rsub")
register(Multiply(), "mul", "multiply")
register(Divide(), "div", "divide", "true_divide")
register(Addcmul(), "addcmul")
register(PRelu(), "prelu")
