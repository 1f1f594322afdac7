"""Sums, differences, products and quotients, with operands that lack an axis, numbers, and themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, positive

from .pointwise import binary, unary
from .row import PARTLY, SINGULAR, Row, row

ROWS: list[Row] = [
    *binary("add sub subtract mul multiply rsub"),
    *binary("div divide true_divide", anything, positive, strict=SINGULAR),
    *unary("add sub subtract rsub", 0),
    *unary("add sub subtract rsub", 1.5),
    *unary("add", True),
    *unary("mul multiply div divide true_divide", -2),
    *unary("mul", 0, strict="multiplied by the number 0"),
    row("add (alpha)", lambda x, y: torch.add(x, y, alpha=-2), "4+ 3+", "4+ 3+"),
    row("rsub (alpha)", lambda x: torch.rsub(x, 0, alpha=2), "4+ 3+"),
    row("add (twice the same)", lambda x: x + x, "4+ 3+"),
    row(
        "add (zeros that lack the axis)",
        lambda x: x + x.new_zeros(3),
        "2+ 3+",
        strict="a tensor of zeros that lacks the axis counts as equal halves",
    ),
    row("add (broadcast unit)", lambda x, y: x + y, "4+ 3+", "4+ 1.", why=Kind.BROADCAST),
    row("add (both broadcast)", lambda x, y: x + y, "1. 3+", "4+ 1.", why=Kind.BROADCAST),
    row("mul (gate)", lambda x, y: x * y, "2+ 3+ 2+ 2+", "2+ 3+ 1. 1.", why=Kind.BROADCAST),
    row("mul (square)", lambda x: x * x, "4+ 3+"),
    row("mul (cube)", lambda x: x * x * x, "4+ 3+"),
    row("div (by itself)", lambda x: x / x, "4+ 3+", draw=positive, strict=SINGULAR),
    row("div (of a number)", lambda x: 2 / x, "4+ 3+", draw=positive),
    row("div (rounded)", lambda x, y: torch.div(x, y, rounding_mode="floor"), "4+ 3+", "4+ 3+", draw=positive),
    row("div (truncated, by a number)", lambda x: torch.div(x, 2, rounding_mode="trunc"), "4+ 3+"),
    row("linalg_cross", lambda x, y: torch.cross(x, y, dim=1), "4+ 3. 2+", "4+ 3. 2+", why=Kind.INDEX),
    row(
        "linalg_cross (of different entries)",
        lambda x, y, z: torch.linalg.cross(torch.stack([x, y, z], -1), torch.stack([z, x, y], -1)),
        "4+ 3+",
        "4+ 3+",
        "4+ 3+",
    ),
    row("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=2), "4+ 3+", "3+", "4+ 3+"),
    row("addcmul_", lambda x, y, z: x.clone().addcmul_(y, z), "4+ 3+", "3+", "3+"),
    row("addcdiv", torch.addcdiv, "4+ 3+", "4+ 3+", "3+", draw=(anything, anything, positive), strict=SINGULAR),
    row("lerp", torch.lerp, "4+ 3+", "4+ 3+", "3+", strict=PARTLY),
    row("lerp (by a number)", lambda x, y: torch.lerp(x, y, 0.25), "4+ 3+", "4+ 3+"),
    row("prelu", F.prelu, "2+ 4+ 3+", "4+", strict="slopes of zero make it a relu"),
    row("prelu (one slope)", F.prelu, "2+ 4+ 3+", "1.", why=Kind.BROADCAST),
    row("prelu (one axis)", F.prelu, "4+", "1.", why=Kind.BROADCAST),
]
