"""Reductions. Over an axis that grows only a sum can be proved."""

from __future__ import annotations

import torch
from torch import Tensor

from fxgrow.errors import Kind

from .row import Row, row

STATISTIC = Kind.STATISTIC
aten = torch.ops.aten


def over(names: str) -> list[Row]:
    """Reductions over one axis, kept and not, and over all."""
    rows = []
    for name in names.split():

        def kept(x: Tensor, name: str = name) -> object:
            return getattr(torch, name)(x, dim=1, keepdim=True)

        def gone(x: Tensor, name: str = name) -> object:
            return getattr(torch, name)(x, dim=-2)

        rows += [
            row(name, kept, "2+ 3. 4+", why=STATISTIC),
            row(f"{name} (dropped)", gone, "2+ 3. 4+", why=STATISTIC),
        ]
    return rows


def whole(names: str) -> list[Row]:
    """Reductions over everything."""
    return [row(f"{name} (of all)", getattr(torch, name), "2. 3.", why=STATISTIC) for name in names.split()]


ROWS: list[Row] = [
    *over("mean nanmean nansum amax amin max min median mode prod std var var_mean std_mean"),
    *over("logsumexp argmax argmin all any norm"),
    *whole("mean max min median prod std var argmax all any nanmean"),
    row("sum", lambda x: x.sum(1), "2+ 3+ 4+"),
    row("sum (two axes)", lambda x: x.sum((0, -1), keepdim=True), "2+ 3+ 4+"),
    row("sum (of all)", torch.sum, "2+ 3+"),
    row("mean (two axes)", lambda x: x.mean((2, 3)), "2+ 3+ 4. 2.", why=STATISTIC),
    row("count_nonzero", lambda x: torch.count_nonzero(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("aminmax", lambda x: torch.aminmax(x, dim=1), "2+ 3. 4+", why=STATISTIC),
    row("norm (of all)", lambda x: aten.norm(x), "2. 3.", why=STATISTIC),
    row("norm (p=1)", lambda x: aten.norm(x, 1, [1], True), "2+ 3. 4+", why=STATISTIC),
    row("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, dim=1), "2+ 3. 4+", why=STATISTIC),
    row("linalg_vector_norm (p=0)", lambda x: torch.linalg.vector_norm(x, 0, dim=1), "2+ 3. 4+", why=STATISTIC),
    row("linalg_vector_norm (p=inf)", lambda x: torch.linalg.vector_norm(x, torch.inf, 1), "2+ 3. 4+", why=STATISTIC),
]
