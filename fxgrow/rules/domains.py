"""Domains of functions: the numbers for which a function of real numbers is defined and finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..capture.program.program import Op, Value


@dataclass(frozen=True, slots=True)
class Domain:
    """An interval of real numbers, open or closed at its bounds."""

    low: float
    high: float = math.inf
    closed: bool = False
    """Whether the bounds belong to the domain."""
    text: str = ""
    """Description of the numbers for messages."""

    def holds(self, low: float, high: float, *, zero: bool) -> bool:
        """Return whether all numbers from `low` to `high` are in the domain. `zero`: zero may be among them."""
        above = low > self.low or (low == self.low and (self.closed or (self.low == 0 and not zero)))
        return above and (high < self.high or (high == self.high and (self.closed or math.isinf(high))))


POSITIVE = Domain(0, text="positive numbers")
NOT_NEGATIVE = Domain(0, closed=True, text="numbers that are not negative")
ABOVE_MINUS_ONE = Domain(-1, text="numbers above -1")
ABOVE_ONE = Domain(1, text="numbers above 1")
FROM_ONE = Domain(1, closed=True, text="numbers from 1 on")
BETWEEN_ZERO_AND_ONE = Domain(0, 1, text="numbers between 0 and 1")
BETWEEN_ONES = Domain(-1, 1, text="numbers between -1 and 1")
NOT_ZERO = Domain(-math.inf, text="numbers other than zero")
FROM_ONE_TO_ONE = Domain(-1, 1, closed=True, text="numbers from -1 to 1")

_OF: Mapping[str, Mapping[str, Domain]] = {
    f"aten::{name}": operands
    for names, operands in (
        ("log log2 log10 rsqrt", {"self": POSITIVE}),
        ("sqrt special_entr", {"self": NOT_NEGATIVE}),
        ("log1p special_log1p", {"self": ABOVE_MINUS_ONE}),
        ("logit special_logit special_ndtri", {"self": BETWEEN_ZERO_AND_ONE}),
        ("acosh arccosh", {"self": FROM_ONE}),
        ("acos arccos asin arcsin", {"self": FROM_ONE_TO_ONE}),
        ("atanh arctanh erfinv special_erfinv", {"self": BETWEEN_ONES}),
        ("reciprocal", {"self": NOT_ZERO}),
        ("fmod remainder floor_divide", {"other": NOT_ZERO}),
        ("xlogy special_xlogy", {"other": POSITIVE}),
        ("special_xlog1py", {"other": ABOVE_MINUS_ONE}),
        ("igamma igammac special_gammainc special_gammaincc", {"self": POSITIVE, "other": NOT_NEGATIVE}),
        ("special_zeta", {"self": ABOVE_ONE, "other": POSITIVE}),
        (
            """special_bessel_y0 special_bessel_y1 special_modified_bessel_k0 special_modified_bessel_k1
            special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1""",
            {"x": POSITIVE, "self": POSITIVE},
        ),
    )
    for name in names.split()
}


def domains_of(op: Op) -> Mapping[str, Domain]:
    """Return the domains of the operands of an operator, by argument name; an operand without one may be anything."""
    match op.name:
        case "aten::div" | "aten::divide" | "aten::true_divide" if isinstance(op.args["other"], Value):
            return {"other": NOT_ZERO}
        case "aten::logit" | "aten::special_logit" if op.args.get("eps") is not None:
            return {}  # it clamps its operand
        case "aten::mvlgamma" | "aten::special_multigammaln":
            least = (op.args["p"] - 1) / 2
            return {"self": Domain(least, text=f"numbers above {least:g}")}
        case "aten::pow" | "aten::float_power":
            return _of_power(op.args.get("self"), op.args.get("exponent"))
    return _OF.get(op.name, {})


def _of_power(base: object, exponent: object) -> Mapping[str, Domain]:
    if isinstance(base, int | float):
        return {} if base > 0 else {"exponent": POSITIVE}
    if not isinstance(exponent, int | float):
        return {"self": POSITIVE}
    if float(exponent).is_integer():
        return {"self": NOT_ZERO} if exponent < 0 else {}
    return {"self": NOT_NEGATIVE if exponent > 0 else POSITIVE}
