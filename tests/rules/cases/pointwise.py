"""Pointwise operators of one operand, or of several that meet unit by unit. All axes may grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.testing.blocks import Draw, above_one, anything, below, below_one, flags, positive, unit

from .row import EVEN, PARTLY, SINGULAR, TRUTH, Row, row

aten = torch.ops.aten


def variants(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """An operator, and its in-place form where torch has one."""
    if hasattr(aten, name):
        yield name, getattr(aten, name)
    if hasattr(aten, name + "_"):
        written = getattr(aten, name + "_")
        yield f"{name}_", lambda x, *rest: written(x.clone(), *rest)


def unary(names: str, *more: object, draw: Draw = anything, strict: str = "") -> list[Row]:
    """Operators of one tensor, and of constants `more`."""
    return [
        row(title, lambda x, op=op: op(x, *more), "4+ 3+", draw=draw, strict=strict)
        for name in names.split()
        for title, op in variants(name)
    ]


def binary(names: str, *draws: Draw, strict: str = "") -> list[Row]:
    """Operators of two tensors; the second is also tried with an axis less."""
    draw = draws if len(draws) == 2 else (draws or (anything,)) * 2
    return [
        row(f"{title}{note}", op, "4+ 3+", operand, draw=draw, strict=strict)
        for name in names.split()
        for title, op in variants(name)
        for note, operand in (("", "4+ 3+"), (" (broadcast)", "3+"))
    ]


def whole(x: Tensor) -> Tensor:
    """Whole numbers; their rounding keeps zero and is odd."""
    return x.to(torch.int64)


def on_whole(names: str, *, amounts: bool = False) -> list[Row]:
    """Operators of two tensors of whole numbers; `amounts`: the second holds small positive ones."""
    return [
        row(
            title,
            lambda x, y, op=op: op(whole(x), whole(y.abs() % 4 if amounts else y)),
            "4+ 3+",
            "4+ 3+",
            strict=TRUTH,
        )
        for name in names.split()
        for title, op in variants(name)
    ]


SMOOTH = """arctan arcsinh asinh atan ceil celu deg2rad elu erf erfc exp exp2 expm1 fix floor frac gelu hardshrink
    hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish neg negative positive rad2deg relu relu6 round selu sgn
    sigmoid sign silu sin sinh softplus softshrink special_bessel_j1 special_erfc special_erfcx special_exp2
    special_expit special_expm1 special_i1 special_i1e special_log_ndtr special_ndtr special_round tan tanh trunc
    angle special_airy_ai special_modified_bessel_i1"""
EVENS = """abs absolute cos cosh i0 sinc special_bessel_j0 special_i0 special_i0e special_sinc square
    special_modified_bessel_i0 special_spherical_bessel_j0"""
FLAGS = """isfinite isinf isnan isneginf isposinf logical_not"""
LINEAR = """clone detach alias contiguous lift lift_fresh lift_fresh_copy conj conj_physical _conj_physical real
    resolve_conj resolve_neg"""
COMPARISONS = """eq ne gt lt greater less not_equal logical_and logical_or logical_xor isclose"""
POLYNOMIALS = """special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_shifted_chebyshev_polynomial_t
    special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_laguerre_polynomial_l"""
EVEN_POLYNOMIALS = """special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_hermite_polynomial_h
    special_hermite_polynomial_he special_legendre_polynomial_p"""

ROWS: list[Row] = [
    *unary(SMOOTH),
    *unary(EVENS, strict=EVEN),
    *unary(FLAGS, strict=TRUTH),
    *unary("signbit", strict="a zero may be a negative one"),
    *unary("nan_to_num", strict="whether infinities are replaced by opposite numbers depends on the arguments"),
    *unary(LINEAR),
    *unary("asin arcsin acos arccos atanh arctanh erfinv special_erfinv", draw=unit),
    *unary("acosh arccosh", draw=above_one),
    *unary("log1p special_log1p lgamma digamma special_digamma special_gammaln special_psi", draw=positive),
    *unary("reciprocal", draw=positive, strict=SINGULAR),
    *unary("sqrt rsqrt log log2 log10 special_entr", draw=positive),
    *unary("logit special_logit special_ndtri", draw=below_one),
    *unary("special_bessel_y0 special_bessel_y1", draw=positive),
    *unary("special_modified_bessel_k0 special_modified_bessel_k1", draw=positive),
    *unary("special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1", draw=positive),
    *unary(POLYNOMIALS, 3, draw=unit),
    *unary(EVEN_POLYNOMIALS, 3, draw=unit, strict=EVEN),
    *unary("mvlgamma", 2, draw=above_one),
    *unary("threshold", 0.5, 2.0),
    *unary("leaky_relu", 0.3),
    *unary("clamp clip hardtanh", -1, 1),
    *unary("clamp clip hardtanh", -1, 2),
    *unary("clamp clip hardtanh", 0.5, 2),
    *unary("clamp clip", 2, -2, strict="clamped from both sides to one number"),
    *unary("clamp_min clamp_max", 0),
    *unary("clamp_min clamp_max", 1),
    *unary("clamp_min clamp_max", -1),
    *unary("pow float_power", 2, strict=EVEN),
    *unary("pow float_power", 3),
    *unary("pow float_power", 1.5, draw=positive),
    *unary("pow float_power", 0.5, draw=positive),
    *unary("pow float_power", -1),
    *unary("pow float_power", 0),
    *unary("remainder fmod floor_divide", 2),
    row("pow (of a number)", lambda x: 2.0**x, "4+ 3+"),
    row("polygamma", lambda x: torch.polygamma(1, x), "4+ 3+", draw=positive),
    row("nan_to_num (of infinities)", lambda x: torch.nan_to_num(1 / x, 1.0, 5.0, -7.0), "4+ 3+"),
    *(
        row(f"{f.__name__} (of infinities)", lambda x, f=f: f(torch.sinh(1e4 * x)), "4+ 3+")
        for f in (torch.isinf, torch.isneginf, torch.isposinf)
    ),
    row("isnan (of infinities)", lambda x: torch.isnan(torch.sin(torch.sinh(1e4 * x))), "4+ 3+"),
    row("nan_to_num (of opposites)", lambda x: torch.nan_to_num(torch.sinh(1e4 * x), 1.0, 5.0, -7.0), "4+ 3+"),
    row("gelu (tanh)", lambda x: F.gelu(x, approximate="tanh"), "4+ 3+"),
    row("elu (alpha)", lambda x: F.elu(x, 2.0), "4+ 3+"),
    row("softplus (beta)", lambda x: F.softplus(x, 2.0, 3.0), "4+ 3+"),
    row("round (decimals)", lambda x: torch.round(x, decimals=1), "4+ 3+"),
    row("bitwise_not", lambda x: torch.bitwise_not(whole(x)), "4+ 3+"),
    row("frexp", torch.frexp, "4+ 3+", strict=PARTLY),
    row("rrelu", lambda x: F.rrelu(x, 0.1, 0.3), "4+ 3+"),
    row("rrelu (training)", lambda x: F.rrelu(x, 0.1, 0.3, True), "4+ 3+", eval_only=True),
    *binary("ge le greater_equal less_equal"),
    *binary(COMPARISONS, strict=TRUTH),
    *binary("fmax fmin maximum minimum logaddexp logaddexp2"),
    *binary("atan2 arctan2 copysign hypot nextafter heaviside", strict=PARTLY),
    *binary("special_xlog1py xlogy special_xlogy", anything, positive, strict=PARTLY),
    *binary("fmod remainder floor_divide", anything, positive, strict=PARTLY),
    *binary("pow float_power", positive, anything),
    *binary("igamma igammac", positive, positive, strict=SINGULAR),
    *binary("special_zeta", above_one, positive),
    row("ldexp", torch.ldexp, "4+ 3+", "4+ 3+", draw=(anything, unit), strict=PARTLY),
    *on_whole("bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ gcd lcm"),
    *on_whole("__iand__ __ior__ __ixor__"),
    *on_whole("__ilshift__ __irshift__", amounts=True),
    *on_whole("bitwise_left_shift bitwise_right_shift __lshift__ __rshift__", amounts=True),
    row("max (of two)", torch.max, "4+ 3+", "3+"),
    row("min (of two)", torch.min, "4+ 3+", "4+ 3+"),
    row(
        "where (of a mask)",
        torch.where,
        "4+ 3+",
        "4+ 3+",
        "4+ 3+",
        draw=(flags, anything, anything),
        strict="a mask that is false at all new units chooses one operand there; those of models are copies",
    ),
    row("where (of a mask and zero)", lambda m, x: torch.where(m, x, 0), "4+ 3+", "4+ 3+", draw=(flags, anything)),
    row("where (of zero and a mask)", lambda m, x: torch.where(m, 0, x), "3+", "4+ 3+", draw=(flags, anything)),
    row("where (of a number)", lambda m, x: torch.where(m, x, 2), "4+ 3+", "3+", draw=(flags, anything)),
    row(
        "where (of whole numbers)", lambda m, x: torch.where(m == 1, x, 0), "4+ 3+", "4+ 3+", draw=(below(3), anything)
    ),
    row("where (of two)", lambda x, y, z: torch.where(x > 0, y, z), "4+ 3+", "4+ 3+", "3+"),
    row("masked_fill (by a mask)", lambda m, x: x.masked_fill(m, 0), "4+ 3+", "4+ 3+", draw=(flags, anything)),
    row("masked_fill (with a tensor)", lambda x, y: x.masked_fill(y > 0, x.new_ones(())), "4+ 3+", "3+"),
    row("mul (by flags)", torch.mul, "4+ 3+", "4+ 3+", draw=(flags, anything)),
    row("mul (by whole numbers)", lambda m, x: x * m.unsqueeze(0), "3+", "4+ 3+", draw=(below(3), anything)),
    row("where (of a comparison)", lambda x, y: torch.where(x > 0, x, y), "4+ 3+", "3+"),
    row("masked_fill", lambda x: x.masked_fill(x > 1, 3.0), "4+ 3+"),
    row("masked_fill_", lambda x: x.clone().masked_fill_(x > 1, 0.0), "4+ 3+"),
    row("float", lambda x: x.float(), "4+ 3+"),
    row("to (half)", lambda x: x.to(torch.bfloat16), "4+ 3+"),
    row("to (whole numbers)", lambda x: x.to(torch.int32), "4+ 3+"),
    row("to (truth values)", lambda x: x.to(torch.bool), "4+ 3+", strict=TRUTH),
    row("to (unsigned)", lambda x: x.to(torch.uint8), "4+ 3+"),
    row("_to_copy", lambda x: aten._to_copy(x, dtype=torch.float32), "4+ 3+"),
    row("_to_copy (truth values)", lambda x: aten._to_copy(x, dtype=torch.bool), "4+ 3+", strict=TRUTH),
    row("type_as", lambda x, y: x.type_as(y), "4+ 3+", "5+"),
    row("type_as (whole numbers)", lambda x, y: x.type_as(whole(y)), "4+ 3+", "5+"),
    row("cdouble", lambda x: torch.real(x.to(torch.complex128)), "4+ 3+"),
    row("conj", lambda x: torch.ops.aten._conj(x.to(torch.complex128)).resolve_conj(), "4+ 3+"),
]
