"""Interval analysis: bounds of the entries of every value, for arbitrary weights and inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ..capture.program.program import Op, Program, Value
from ..rules.domains import NOT_ZERO, Domain
from .idempotent import CLAMPS, KEEPS_VALUES, function_of, keeps_type, kept_by

Bounds = tuple[float, float]
ANYTHING: Bounds = (-math.inf, math.inf)
SHARES: Bounds = (0.0, 1.0)
POSITIVE: Bounds = (0.0, math.inf)

_RISING = CLAMPS | {f"aten::{name}" for name in ("sigmoid", "hardsigmoid", "tanh", "exp", "softplus", "elu")}
"""Pointwise functions that are non-decreasing, so that they map bounds to bounds."""
_IMAGES: Mapping[str, Bounds] = {
    f"aten::{name}": bounds
    for names, bounds in (
        (("softmax", "_softmax"), SHARES),
        (("abs", "absolute", "square", "sqrt", "norm", "linalg_vector_norm", "var", "std"), POSITIVE),
        (("var_mean", "std_mean"), POSITIVE),
    )
    for name in names
}
"""Bounds of the results of other functions, for any operands."""
_BETWEEN = frozenset(
    f"aten::{name}"
    for name in (
        "mean",
        "amax",
        "amin",
        *(f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg") for n in (1, 2, 3)),
        *(
            f"upsample_{kind}"
            for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d")
        ),
    )
)
"""Functions whose results lie between the smallest and the largest entry, padded zeros included."""


_WITH_MEAN = ("aten::var_mean", "aten::std_mean")
"""Functions with two results, of which only the first has bounds."""
_NEVER_ZERO = frozenset(
    f"aten::{name}"
    for name in ("exp", "exp2", "sigmoid", "softplus", "cosh", "softmax", "_softmax", "rsqrt", "reciprocal", "erfc")
)
"""Functions whose results are never zero in exact arithmetic."""
_ZERO_AT_ZERO = frozenset(f"aten::{name}" for name in ("sqrt", "abs", "absolute", "square", "neg", "negative", "pow"))
"""Functions of one tensor whose results are zero exactly where the tensor is zero."""
_OVER = frozenset(f"aten::{name}" for name in ("sum", "mean", "amax", "amin", "cumsum", "norm", "linalg_vector_norm"))
"""Functions of several units whose results, for operands that are not negative, are zero only if all units are."""
_FLAT = CLAMPS | frozenset(
    f"aten::{name}"
    for name in (
        *("threshold", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "floor", "round", "trunc", "fix"),
        *("ceil", "sign", "sgn", "frac", "dropout", "feature_dropout", "alpha_dropout", "max_unpool2d"),
    )
)
"""Functions whose results may be zero for whole ranges of inputs, as those of relu for negative ones."""


class Ranges:
    """The bounds of all values of a program, for arbitrary weights and inputs.

    Args:
        program: the program. Dropout is one of its operators in evaluation mode too.
        veiled: values that may be different in training mode, the results of `veils`; their bounds are unknown.
    """

    def __init__(self, program: Program, veiled: Collection[Value] = ()) -> None:
        self._bounds: dict[int, Bounds] = {}
        self._nowhere_zero: set[int] = set()
        self._flat: set[int] = set()
        for op in program.ops:
            found = _result(op, self.of)
            nowhere, flat = self._never_zero(op), self._often_zero(op)
            for out in op.outputs[:1] if op.name in _WITH_MEAN else op.outputs:
                told = out.dtype.is_floating_point and out not in veiled and not any(map(math.isnan, found))
                self._bounds[out.index] = found if told else ANYTHING
                if told and nowhere:
                    self._nowhere_zero.add(out.index)
                if flat:
                    self._flat.add(out.index)

    def of(self, x: object) -> Bounds:
        """Return the lower and the upper bound of all entries of a value; infinite if unknown."""
        return self._bounds.get(x.index, ANYTHING) if isinstance(x, Value) else _number(x)

    def nowhere_zero(self, x: object) -> bool:
        """Return whether no entry of a value is zero."""
        low, high = self.of(x)
        return low > 0 or high < 0 or (isinstance(x, Value) and x.index in self._nowhere_zero)

    def often_zero(self, x: object) -> bool:
        """Return whether entries of a value may be zero for whole ranges of inputs, as after a relu."""
        return isinstance(x, Value) and x.index in self._flat and not self.nowhere_zero(x)

    def inside(self, x: Value, domain: Domain) -> bool:
        """Return whether all entries of a value are in a domain. For `NOT_ZERO` isolated inputs do not count."""
        if domain is NOT_ZERO:
            return not self.often_zero(x)
        return x.dtype.is_complex or domain.holds(*self.of(x), zero=not self.nowhere_zero(x))

    def _never_zero(self, op: Op) -> bool:
        values = [x for x in op.args.values() if isinstance(x, Value | int | float)][:2]
        if op.name in _NEVER_ZERO:
            return True
        if op.name in KEEPS_VALUES or op.name in _ZERO_AT_ZERO:
            return all(map(self.nowhere_zero, op.inputs()))
        if op.name in _OVER:
            return self.of(values[0])[0] >= 0 and self.nowhere_zero(values[0])
        if op.name in ("aten::mul", "aten::div"):
            return all(map(self.nowhere_zero, values))
        both = op.name == "aten::add" and op.args.get("alpha", 1) == 1 and all(self.of(x)[0] >= 0 for x in values)
        return both and any(map(self.nowhere_zero, values))

    def _often_zero(self, op: Op) -> bool:
        if op.name in _FLAT:
            return True
        values = [x for x in op.args.values() if isinstance(x, Value | int | float)][:2]
        if op.name in KEEPS_VALUES or op.name in _ZERO_AT_ZERO or op.name in _BETWEEN or op.name in _OVER:
            return any(map(self.often_zero, op.inputs()))
        if op.name in ("aten::mul", "aten::div"):
            return any(map(self.often_zero, values[: 2 if op.name == "aten::mul" else 1]))
        return op.name in ("aten::add", "aten::sub") and all(map(self.often_zero, values))


def bounds_of(program: Program, value: Value, veiled: Collection[Value] = ()) -> Bounds:
    """Return the lower and the upper bound of all entries of a value in both modes (see `Ranges`)."""
    return Ranges(program, veiled).of(value)


def _number(x: object) -> Bounds:
    return (float(x), float(x)) if isinstance(x, int | float) and math.isfinite(x) else ANYTHING


def _result(op: Op, of: Callable[[Any], Bounds]) -> Bounds:
    args, first = op.args, next(iter(op.args.values()), None)
    name = op.name.removeprefix("aten::")
    kept = kept_by(op)
    if kept is not None and kept[0] <= of(first)[0] and of(first)[1] <= kept[1]:
        return of(first)
    if op.name in _IMAGES:
        return _IMAGES[op.name]
    if op.name in KEEPS_VALUES:
        return _hull(*map(of, op.inputs())) if keeps_type(op) else ANYTHING
    if op.name in _BETWEEN and args.get("divisor_override") is None:
        return _hull(of(first), (0.0, 0.0)) if "padding" in args else of(first)
    if op.name in _RISING and (apply := function_of(op)) is not None:
        low, high = apply(torch.tensor(of(first), dtype=torch.float64)).tolist()
        return low, high
    match name:
        case "add" | "sub" | "rsub":
            return _sum(name, of(args["self"]), of(args["other"]), args.get("alpha", 1))
        case "mul" if args["self"] is args["other"]:
            return POSITIVE
        case "mul":
            return _product(of(args["self"]), of(args["other"]))
        case "div" if args.get("rounding_mode") is None and isinstance(args["other"], int | float) and args["other"]:
            return _product(of(first), _number(1 / args["other"]))
        case "div" | "reciprocal" if of(first)[0] >= 0 and of(args.get("other", first))[0] >= 0:
            return POSITIVE
        case "pow" if isinstance(args["self"], Value) and (of(first)[0] >= 0 or args["exponent"] in (2, 4, 6, -2)):
            return POSITIVE
        case "sum" | "cumsum" if of(first)[0] >= 0:
            return POSITIVE
        case "dropout":
            scaled = _product(of(first), (1.0, 1 / (1 - args["p"]) if args["p"] < 1 else 1.0))
            return _hull(scaled, (0.0, 0.0))
        case "pad" if args.get("mode", "constant") == "constant":
            return _hull(of(first), _number(args.get("value") or 0))
    return ANYTHING


def _hull(*some: Bounds) -> Bounds:
    return (min(low for low, _ in some), max(high for _, high in some)) if some else ANYTHING


def _sum(name: str, a: Bounds, b: Bounds, alpha: float) -> Bounds:
    a, b = (b, a) if name == "rsub" else (a, b)
    b = _product(b, (alpha, alpha) if name == "add" else (-alpha, -alpha))
    return a[0] + b[0], a[1] + b[1]


def _product(a: Bounds, b: Bounds) -> Bounds:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)
