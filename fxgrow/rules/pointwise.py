"""Pointwise operators: the same function is applied to every entry; operands are broadcast."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, broadcast, register
from .domains import domains_of


def operands(op: Op) -> list[Value]:
    """Return the tensor operands, in schema order."""
    return list(op.inputs())


def meet(op: Op, d: AxisContext, values: list[Value]) -> list[Axis]:
    """Unify the axes of operands that are broadcast, and return those of the result."""
    rows = [d.of(v) for v in values]
    if len(values) == 1:
        return rows[0]
    out = op.outputs[0]
    axes: list[Axis] = []
    for k in range(len(out.shape), 0, -1):
        sides = [(r[-k], v.shape[-k]) for r, v in zip(rows, values, strict=True) if len(r) >= k]
        # a fixed axis of size 1 is broadcast to any size, unless the operator writes to that operand
        free = [side for side in sides if op.mutates or d.algebra.resolve(side[0]) != Fixed(1)]
        axes.append(broadcast(d, free or sides))
    return axes


def aligned(op: Op, s: StateContext, values: list[Value]) -> Iterator[list[list[State]]]:
    """Yield for each axis of the result the states of all operands; one without the axis is the same along it."""
    rows = [s.of(v) for v in values]
    rank = len(op.outputs[0].shape)
    for k in range(rank, 0, -1):
        some = [r[-k] if len(r) >= k else [] for r in rows]
        width = max(map(len, some), default=0)
        yield [states if len(states) == width else [s.same] * width for states in some]


def drawn(op: Op, s: StateContext, rows: AxisStates, why: str) -> AxisStates:
    """Return the states after an operator that may draw a random factor for every unit: in both modes, in training mode
    only, or never."""
    if op.draws[0]:
        return [[s.drawn(op, x, why) for x in row] for row in rows]
    if op.draws[1] and any(rows):
        s.only_eval(op, why)
    return rows


def inside(op: Op, s: StateContext, value: Value, states: list[State]) -> list[State]:
    """Require that new units of an operand are in the domain of the operator, and return their states."""
    for name, domain in domains_of(op).items():
        if op.args.get(name) is value:
            states = [s.within(op, x, value, domain) for x in states]
    return states


def is_number(arg: object) -> bool:
    """Return whether an argument is a Python number, but not a bool."""
    return isinstance(arg, int | float | complex) and not isinstance(arg, bool)


class Unary(SameSizes):
    """A pointwise function of one or several operands.

    Args:
        odd: f(-x) = -f(x), for one operand.
        zero: f(0) = 0.
        linear: f(ax + by) = a f(x) + b f(y), for one operand.
        homogeneous: f(cx, cy) = c f(x, y) for c > 0.
        unsafe: name of the operand (or "all") at which the function or its slope is infinite at zero. Its new units may
            not be zero, nor odd, as an odd unit without a partner is zero.
    """

    by_index = True

    def __init__(
        self,
        *,
        odd: bool = False,
        zero: bool = False,
        linear: bool = False,
        homogeneous: bool = False,
        unsafe: str = "",
    ) -> None:
        self.odd, self.zero, self.linear, self.homogeneous = odd, zero, linear, homogeneous
        self.unsafe = unsafe

    def dims(self, op: Op, d: AxisContext) -> None:
        """The result has the axes of the broadcast operands."""
        axes = meet(op, d, operands(op))
        for out in op.outputs:
            d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Equal units stay equal; opposite ones stay opposite if the function is odd."""
        rows: AxisStates = []
        values = operands(op)
        for sides in aligned(op, s, values):
            for k, value in enumerate(values):
                if self.unsafe == "all" or value is op.args.get(self.unsafe):
                    sides[k] = [s.require(op, x, even=True, why="the function is singular at zero") for x in sides[k]]
                sides[k] = inside(op, s, value, sides[k])
            leaves = zip(*sides, strict=True)
            how = {"odd": self.odd, "zero": self.zero, "linear": self.linear, "homogeneous": self.homogeneous}
            rows.append([s.map_units(op, leaf, **how) for leaf in leaves])
        for out in op.outputs:
            s.set(out, rows)


class Clamp(Unary):
    """clamp, hardtanh: clamping to [low, high], which preserves zero if 0 is in the interval, and is odd if the
    interval is symmetric."""

    def __init__(self, low: str, high: str) -> None:
        super().__init__()
        self.low, self.high = low, high

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a pointwise function whose properties follow from the interval."""
        low, high = op.args.get(self.low), op.args.get(self.high)
        numbers = all(x is None or is_number(x) for x in (low, high))
        zero = numbers and (low is None or low <= 0) and (high is None or high >= 0)
        odd = zero and low is not None and high is not None and low == -high
        half = zero and {low, high} == {None, 0}
        Unary(odd=odd, zero=zero, homogeneous=half).states(op, s)


class Power(Unary):
    """pow: x ** p, which is odd for odd whole p >= 1, and preserves zero for p >= 1. For smaller p the function or its
    slope is infinite at zero."""

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a pointwise function whose properties follow from the exponent, if that is a number."""
        p = op.args.get("exponent")
        if not isinstance(p, int | float):
            Unary(unsafe="self").states(op, s)
            return
        odd = p >= 1 and float(p).is_integer() and int(p) % 2 == 1
        Unary(odd=odd, zero=p >= 1, unsafe="" if p >= 1 or p == 0 else "self").states(op, s)


class Cast(Unary):
    """to, type_as: conversion to another dtype, which is odd if the new dtype is signed."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """The result has the axes of the operand; another operand determines the dtype only."""
        d.set(op.outputs[0], d.of(op.args["self"]))

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a pointwise function that preserves zero."""
        dtype = op.outputs[0].dtype
        odd = dtype.is_signed and dtype is not torch.bool
        linear = odd and (dtype.is_floating_point or dtype.is_complex)
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], [[s.map_units(op, [x], odd=odd, zero=True, linear=linear) for x in r] for r in rows])


class RandomSlope(Unary):
    """rrelu: leaky relu with a random slope for every unit in training mode, and a constant one in evaluation mode."""

    def states(self, op: Op, s: StateContext) -> None:
        """Equal units stay equal where the slope is not random."""
        rows = drawn(op, s, s.of(op.args["self"]), "rrelu draws a slope for every unit")
        out = [[s.map_units(op, [x], odd=False, zero=True, homogeneous=True) for x in row] for row in rows]
        s.set(op.outputs[0], out)


class PRelu(SameSizes):
    """prelu: leaky relu with one slope for all channels, or one for each channel (axis 1)."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The slopes have the channel axis."""
        x, slope = op.args["self"], op.args["weight"]
        axes = d.of(x)
        if len(axes) > 1 and slope.shape:
            axes[1] = broadcast(d, [(axes[1], x.shape[1]), (d.of(slope)[0], slope.shape[0])])
        elif slope.shape:
            d.freeze(d.of(slope)[0], Kind.BROADCAST, "its size 1 is broadcast to a larger size")
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Equal channels with equal slopes stay equal; along other axes the slope is the same for all units."""
        out = s.of(op.args["self"])
        slopes = s.of(op.args["weight"])
        row = slopes[0] if slopes else []
        row = [s.require(op, slope, even=True, why="paired units need equal slopes") for slope in row]
        for k, states in enumerate(out):
            # max(x, 0) and min(x, 0), of which the latter is multiplied by the slope
            halves = [s.map_units(op, [x], odd=False, zero=True, homogeneous=True) for x in states]
            other = [s.mul(op, pair) for pair in zip(halves, row, strict=True)] if k == 1 and row else halves
            out[k] = [s.add(op, pair) for pair in zip(halves, other, strict=True)]
        s.set(op.outputs[0], out)


_LINEAR = """neg negative positive clone detach alias contiguous lift lift_fresh lift_fresh_copy deg2rad rad2deg
    real conj _conj conj_physical _conj_physical resolve_conj resolve_neg"""
_ODD = """sign sgn trunc fix round special_round frac
    sin sinh asin arcsin asinh arcsinh tan tanh atan arctan atanh arctanh erf erfinv special_erfinv
    hardshrink softshrink special_i1 special_i1e special_bessel_j1 special_modified_bessel_i1"""
_HOMOGENEOUS = """abs absolute relu leaky_relu maximum minimum fmax fmin copysign"""
_KEEPS_ZERO = """angle ceil floor square expm1 special_expm1 log1p special_log1p nan_to_num
    relu6 elu celu selu silu mish gelu hardswish"""
_NEITHER = """acos arccos cos cosh sinc special_sinc exp exp2 special_exp2 erfc special_erfc special_erfcx sigmoid
    special_expit hardsigmoid softplus log_sigmoid threshold i0 special_i0 special_i0e special_modified_bessel_i0
    special_bessel_j0 special_spherical_bessel_j0 special_airy_ai special_ndtr special_log_ndtr special_xlog1py
    atan2 arctan2 heaviside ldexp lerp logaddexp logaddexp2 nextafter frexp signbit
    isfinite isinf isnan isneginf isposinf isclose eq ne gt ge lt le greater greater_equal less less_equal not_equal
    logical_not logical_and logical_or logical_xor gcd lcm
    bitwise_not bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift
    __and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__ __ilshift__ __irshift__"""
_UNSAFE = """sqrt rsqrt reciprocal log log2 log10 logit special_logit special_entr special_ndtri acosh arccosh
    lgamma special_gammaln digamma special_digamma special_psi polygamma mvlgamma igamma igammac special_zeta hypot
    special_bessel_y0 special_bessel_y1 special_modified_bessel_k0 special_modified_bessel_k1
    special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1"""
_POLYNOMIALS = """chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
    shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v
    shifted_chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l
    legendre_polynomial_p"""

register(Unary(odd=True, zero=True, linear=True), *_LINEAR.split())
register(Unary(odd=True, zero=True), *_ODD.split())
register(Unary(zero=True, homogeneous=True), *_HOMOGENEOUS.split())
register(Unary(zero=True), *_KEEPS_ZERO.split())
register(Unary(), *_NEITHER.split())
register(Unary(), *(f"special_{name}" for name in _POLYNOMIALS.split()))
register(Unary(unsafe="all"), *_UNSAFE.split())
register(Unary(unsafe="other"), "fmod", "remainder", "floor_divide", "xlogy", "special_xlogy")
register(Cast(), "to", "_to_copy", "type_as")
register(Clamp("min", "max"), "clamp", "clip")
register(Clamp("min", "none"), "clamp_min")
register(Clamp("none", "max"), "clamp_max")
register(Clamp("min_val", "max_val"), "hardtanh")
register(Power(), "pow", "float_power")
register(PRelu(), "prelu")
register(RandomSlope(), "rrelu")
