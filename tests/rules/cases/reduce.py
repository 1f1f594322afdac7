"""Reductions. Over an axis that grows sums, means, variances and norms can be proved."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind

from .row import EVEN, FIRST, TRUTH, Row, row

STATISTIC = Kind.STATISTIC
aten = torch.ops.aten


def over(names: str, *, grows: bool = False, strict: str = "") -> list[Row]:
    """Reductions over one axis, kept and not."""
    rows = []
    operand, why = ("2+ 3+ 4+", ()) if grows else ("2+ 3. 4+", STATISTIC)
    for name in names.split():

        def kept(x: Tensor, name: str = name) -> object:
            return getattr(torch, name)(x, dim=1, keepdim=True)

        def gone(x: Tensor, name: str = name) -> object:
            return getattr(torch, name)(x, dim=-2)

        rows += [
            row(name, kept, operand, why=why, strict=strict),
            row(f"{name} (dropped)", gone, operand, why=why, strict=strict),
        ]
    return rows


def whole(names: str) -> list[Row]:
    """Reductions over everything."""
    return [row(f"{name} (of all)", getattr(torch, name), "2. 3.", why=STATISTIC) for name in names.split()]


ROWS: list[Row] = [
    *over("nanmean nansum mode logsumexp"),
    *over("median", strict="a median of an odd number of units is odd"),
    *over("prod", strict=EVEN),
    *over("argmax argmin", strict=FIRST),
    *over("mean norm amax amin", grows=True),
    *over("std var var_mean std_mean", grows=True, strict=EVEN),
    *over("max min", grows=True, strict=FIRST),
    *over("all any", grows=True, strict=TRUTH),
    *whole("median prod argmax nanmean"),
    *(
        row(f"{name} (of all)", getattr(torch, name), "2+ 3+")
        for name in ("mean", "std", "var", "norm", "max", "min", "all", "any")
    ),
    row("any (of few)", lambda x: (x > 1).any(1), "2+ 3+"),
    row("max (its values)", lambda x: x.max(1).values, "2+ 3+ 4+"),
    row("min (its values)", lambda x: x.min(-1, keepdim=True)[0], "2+ 3+ 4+"),
    row(
        "cosine_similarity",
        lambda x, y: F.cosine_similarity(x, y, dim=-1, eps=0.7),
        "2+ 3+ 4+",
        "2+ 3+ 4+",
        strict=EVEN,
    ),
    row("cosine_similarity (broadcast)", lambda x, y: F.cosine_similarity(x[:, None], y, dim=-1), "2+ 4+", "3+ 4+"),
    row("cosine_similarity (of two axes)", lambda x, y: F.cosine_similarity(x, y, 1), "2+ 3+", "2+ 3+"),
    row("mean (of a product)", lambda x: x.flatten(1).mean(1), "2+ 3+ 2+"),
    row("mean (of a concatenation)", lambda x, y: torch.cat([x, y], 1).mean(1), "2+ 3+", "2+ 2+"),
    row("mean (of squares)", lambda x: x.pow(2).mean(-1, keepdim=True), "2+ 4+"),
    row("var (biased)", lambda x: x.var(-1, unbiased=False), "2+ 4+"),
    row("var (correction)", lambda x: torch.var(x, dim=(0, 1), correction=2, keepdim=True), "2+ 4+ 2+"),
    row("rms norm by hand", lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 0.5).rsqrt() * w, "2+ 4+", "4+"),
    row(
        "layer norm by hand",
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 0.5).sqrt(),
        "2+ 4+",
    ),
    row("normalize", lambda x: F.normalize(x, dim=-1, eps=0.1), "2+ 4+"),
    row("sum", lambda x: x.sum(1), "2+ 3+ 4+"),
    row("sum (two axes)", lambda x: x.sum((0, -1), keepdim=True), "2+ 3+ 4+"),
    row("sum (of all)", torch.sum, "2+ 3+"),
    row("mean (two axes)", lambda x: x.mean((2, 3)), "2+ 3+ 4+ 2+"),
    row("count_nonzero", lambda x: torch.count_nonzero(x, 1), "2+ 3. 4+", why=STATISTIC, strict=TRUTH),
    row("aminmax", lambda x: torch.aminmax(x, dim=1), "2+ 3+ 4+"),
    row("norm (of all, aten)", lambda x: aten.norm(x), "2+ 3+"),
    row("norm (p=1)", lambda x: aten.norm(x, 1, [1], True), "2+ 3+ 4+", strict=EVEN),
    row("linalg_norm", lambda x: torch.linalg.norm(x, dim=1), "2+ 3+ 4+", strict=EVEN),
    row("linalg_norm (of all)", lambda x: torch.linalg.norm(x), "2+ 3+ 4+"),
    row("linalg_norm (of matrices)", lambda x: torch.linalg.norm(x, 1, dim=(0, 1)), "2. 3. 4+", why=STATISTIC),
    row("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, dim=1), "2+ 3+ 4+", strict=EVEN),
    row("linalg_vector_norm (p=0)", lambda x: torch.linalg.vector_norm(x, 0, dim=1), "2+ 3. 4+", why=STATISTIC),
    row("linalg_vector_norm (p=inf)", lambda x: torch.linalg.vector_norm(x, torch.inf, 1), "2+ 3+ 4+"),
]
