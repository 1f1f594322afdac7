"""Idempotent pointwise functions, σ(σ(x)) = σ(x), and the intervals on which a function is the identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..capture.program.program import Op, Value
from ..rules.base import RULES
from ..rules.pointwise import Unary

CLAMPS = frozenset(f"aten::{name}" for name in ["relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max"])
"""Projections onto an interval: they are the identity on it, and nowhere else."""
BENT_BELOW_ZERO = frozenset(f"aten::{name}" for name in ["abs", "absolute", "leaky_relu", "elu", "celu"])
"""Functions that are the identity for x >= 0, for some of their options."""
IDEMPOTENT = CLAMPS | frozenset(
    f"aten::{name}"
    for name in [
        "abs",
        "absolute",
        "sign",
        "sgn",
        "floor",
        "ceil",
        "trunc",
        "fix",
        "round",
        "threshold",
        "hardshrink",
        "nan_to_num",
        "positive",
    ]
)
"""Functions that are idempotent by definition: projections onto an interval, rounding, signs, absolute values."""
KEEPS_VALUES = frozenset(
    f"aten::{name}"
    for name in [
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "movedim",
        "squeeze",
        "unsqueeze",
        "slice",
        "select",
        "narrow",
        "split",
        "chunk",
        "unbind",
        "cat",
        "stack",
        "contiguous",
        "clone",
        "detach",
        "alias",
        "channel_shuffle",
        "pixel_shuffle",
        "flip",
        "roll",
        "expand",
    ]
)
"""Operators whose results consist of entries of their operands."""
PROBES = (
    0.0,
    1e-300,
    -1e-300,
    0.25,
    -0.25,
    0.5,
    -0.5,
    1.0,
    -1.0,
    2.5,
    -2.5,
    3.0,
    5.75,
    -5.75,
    6.0,
    19.0,
    -20.5,
    1e30,
    -1e30,
)
"""Numbers on which functions are tried out."""


def function_of(op: Op) -> Callable[[Tensor], Tensor] | None:
    """Return the pointwise function of one tensor that an operator computes; None if it computes anything else."""
    values = list(op.inputs())
    if len(values) != 1 or not isinstance(RULES.get(op.name), Unary):
        return None
    overload = getattr(getattr(torch.ops.aten, op.name.removeprefix("aten::"), None), op.overload or "default", None)
    if overload is None or not op.name.startswith("aten::"):
        return None
    fixed: Mapping[str, Any] = {k: v for k, v in op.args.items() if not isinstance(v, Value)}
    name = next(k for k, v in op.args.items() if isinstance(v, Value))

    def apply(x: Tensor) -> Tensor:
        result: Tensor = overload(**{name: x, **fixed})
        return result

    return apply


def idempotent(op: Op) -> bool:
    """Return whether σ(σ(x)) = σ(x): by definition, and for the options of this call on `PROBES`."""
    apply = function_of(op)
    if apply is None or op.name not in IDEMPOTENT:
        return False
    once = apply(torch.tensor(PROBES, dtype=torch.float64))
    return torch.equal(apply(once.clone()), once)


def keeps_type(op: Op) -> bool:
    """Return whether the result has the dtype of all operands: no type promotion, and no view as another dtype."""
    return all(x.dtype is op.outputs[0].dtype for x in op.inputs())


def kept_by(op: Op) -> tuple[float, float] | None:
    """Return an interval on which a non-linearity is the identity; None if no such interval is known."""
    apply = function_of(op)
    if op.name in CLAMPS and apply is not None:
        low, high = apply(torch.tensor([-math.inf, math.inf], dtype=torch.float64)).tolist()
        return (low, high) if low <= high else None
    if op.name == "aten::prelu":  # for any slope
        return 0.0, math.inf
    if op.name not in BENT_BELOW_ZERO or apply is None:
        return None
    positive = torch.tensor([x for x in PROBES if x >= 0], dtype=torch.float64)
    return (0.0, math.inf) if torch.equal(apply(positive.clone()), positive) else None


def same_function(a: Op, b: Op) -> bool:
    """Return whether two operators of one tensor compute the same function: same name and options."""

    def plain(op: Op) -> dict[str, Any]:
        return {k: v for k, v in op.args.items() if not isinstance(v, Value)}

    return a.name == b.name and plain(a) == plain(b)


def slope_at_zero(op: Op) -> float | None:
    """Return the derivative at zero, as autograd computes it; None if the operator is not a pointwise function of one
    tensor."""
    apply = function_of(op)
    if apply is None:
        return None
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        y = apply(x.clone())
        if not y.requires_grad:
            return 0.0
        (slope,) = torch.autograd.grad(y.sum(), x)
    return float(slope)
