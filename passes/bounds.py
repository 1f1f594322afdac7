"""Bounds of values: what operators tell of all entries of their results, whatever the weights and inputs are."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from fxgrow.analysis import Analysis
from fxgrow.capture.other_modes import same_work
from fxgrow.capture.program import Op, Program, Value
from fxgrow.dims.rules.idempotent import CLAMPS, KEEPS_VALUES, function_of, keeps_type, kept_by

Bounds = tuple[float, float]
ANYTHING: Bounds = (-math.inf, math.inf)
SHARES: Bounds = (0.0, 1.0)
POSITIVE: Bounds = (0.0, math.inf)

_RISING = CLAMPS | {f"aten::{name}" for name in ("sigmoid", "hardsigmoid", "tanh", "exp")}
"""Unit-by-unit functions that never fall, so that they take bounds to bounds."""
_IMAGES: Mapping[str, Bounds] = {
    f"aten::{name}": bounds
    for names, bounds in (
        (("softmax", "_softmax"), SHARES),
        (("abs", "absolute", "square", "sqrt", "norm", "linalg_vector_norm", "var", "std"), POSITIVE),
    )
    for name in names
}
"""Between what the results of other functions are."""
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
"""Whose results are between the smallest and the largest entry, or zeros that were put beside them."""


def bounds_of(program: Program, value: Value, veiled: Collection[Value] = ()) -> Bounds:
    """Between which numbers all entries of a value are, in either mode; infinite where nothing is known.

    Args:
        program: in which it is made. Dropout that passes its input on in evaluation mode is an operator all the same.
        value: a tensor of floating-point numbers.
        veiled: values that may be others in training mode, the results of `veils`.
    """
    known: dict[int, Bounds] = {}

    def of(x: object) -> Bounds:
        return known.get(x.index, ANYTHING) if isinstance(x, Value) else _number(x)

    for op in program.ops:
        found = _result(op, of)
        for out in op.outputs:
            told = out.dtype.is_floating_point and out not in veiled and not any(map(math.isnan, found))
            known[out.index] = found if told else ANYTHING
    return of(value)


def veils(gm: fx.GraphModule, analysis: Analysis) -> list[fx.Node]:
    """Calls of modules that do something else in the other mode: those of torch that do nothing in this one, like
    dropout, and those of the user that run other operators there. Functions are the same in both, with their flags."""
    program, others = analysis.program, [mode.analysis for mode in analysis.others(gm)]
    active = {op.node for op in program.ops}

    def veiled(node: fx.Node) -> bool:
        module = gm.get_submodule(str(node.target))
        if type(module).__module__.startswith("torch.nn."):
            return node.name not in active and type(module) is not nn.Identity
        return any(there is None or not same_work(program, there.program, node.name) for there in others)

    return [n for n in gm.graph.nodes if n.op == "call_module" and veiled(n)]


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
