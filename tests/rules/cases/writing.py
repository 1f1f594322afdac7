"""Writes: copies, parts that are replaced, and writes through views, which are lowered to these."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, below

from .row import Row, row

aten = torch.ops.aten
INDEX, BROADCAST, FIXED = Kind.INDEX, Kind.BROADCAST, Kind.FIXED
BY_NUMBER = (INDEX, Kind.CONSTANT)


def put(x: Tensor, where: list[Tensor | None], value: Tensor | None = None) -> Tensor:
    """Replace entries by a number, or by others."""
    put: Tensor = aten.index_put(x, where, x.new_full((), 2.0) if value is None else value)
    return put


def through(view: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], object]:
    """Add something to a view of a tensor; what the tensor is then."""

    def call(x: Tensor, part: Tensor) -> object:
        y = x.clone()
        view(y).add_(part)
        return y.neg()

    return call


def overlapping(x: Tensor, p: Tensor) -> object:
    """Writes into views that overlap, each of which is read afterwards."""
    y = x.clone()
    left, flat = y[:, :2], y.view(-1, 4)
    left.add_(p)
    flat.mul_(2.0)
    y[:, 1:].mul_(3.0)
    return left.neg(), flat.neg(), y.neg()


def overwritten(x: Tensor, p: Tensor) -> object:
    """A tensor of zeros of which one part is overwritten, then the other."""
    y = torch.zeros_like(x)
    y[:, 1:].copy_(x[:, 1:])
    y[:, :1].copy_(p)
    return y.neg()


ROWS: list[Row] = [
    row("copy", lambda x, p: x.clone().copy_(p), "2+ 3+", "2+ 3+"),
    row("copy (broadcast)", lambda x, p: x.clone().copy_(p), "2+ 3+", "3+"),
    row("copy (one unit)", lambda x, p: x.clone().copy_(p), "2+ 3+", "1. 3+", why=BROADCAST),
    row("copy (into whole numbers)", lambda x: torch.ones_like(x, dtype=torch.int64).copy_(x), "2+ 3+"),
    row("slice_scatter", lambda x, p: torch.slice_scatter(x, p, 1, 1, 3), "2+ 5+ 4+", "2+ 2+ 4+"),
    row("slice_scatter (to the end)", lambda x, p: torch.slice_scatter(x, p, 1, -2), "2+ 5+", "2+ 2+"),
    row("slice_scatter (but for the end)", lambda x, p: torch.slice_scatter(x, p, 0, 0, -1), "4+ 2+", "3+ 2+"),
    row("slice_scatter (all of it)", lambda x, p: torch.slice_scatter(x, p, 1), "2+ 3+ 2+", "2+ 3+ 2+"),
    row(
        "slice_scatter (stride)", lambda x, p: torch.slice_scatter(x, p, 1, 0, 4, 2), "2+ 4. 3+", "2+ 2. 3+", why=INDEX
    ),
    row("select_scatter", lambda x, p: torch.select_scatter(x, p, 1, -1), "2+ 3. 4+", "2+ 4+", why=INDEX),
    row("select_scatter (the only one)", lambda x, p: torch.select_scatter(x, p, 0, 0), "1. 4+", "4+", why=INDEX),
    row("index_put", lambda x: put(x, [x > 1]), "2+ 3+"),
    row("index_put_", lambda x: aten.index_put_(x.clone(), [x > 1], x.new_zeros(())), "2+ 3+"),
    row("index_put (of rows)", lambda x, m: put(x, [m > 0]), "2+ 3+ 4+", "2+ 3+"),
    row("index_put (of columns)", lambda x, m: put(x, [None, m > 0]), "2+ 3+ 4+", "3+"),
    row("index_put (by number)", lambda x, i: put(x, [i]), "3. 4.", "2.", why=BY_NUMBER, draw=(anything, below(3))),
    row("index_put (of rows, by many)", lambda x, m, v: put(x, [m > 0], v), "2. 3. 4.", "2. 3.", "4.", why=INDEX),
    row("add (through a slice)", through(lambda y: y[:, 1:, :3]), "2+ 3+ 5+", "2+ 2+ 3+"),
    row("add (through a unit)", through(lambda y: y[:, 0]), "2+ 3. 4+", "2+ 4+", why=INDEX),
    row("add (through the only unit)", through(lambda y: y.squeeze(1)), "2+ 1. 4+", "2+ 4+", why=FIXED),
    row("add (through a transposition)", through(lambda y: y.transpose(0, 2)[1:]), "2+ 3+ 4+", "3+ 3+ 2+"),
    row(
        "add (through a permutation)",
        through(lambda y: y.permute(2, 0, 1).unsqueeze(1)),
        "2+ 3+ 4+",
        "4+ 1. 2+ 3+",
        why=FIXED,
    ),
    row("add (through a moved axis)", through(lambda y: y.movedim(0, -1)[..., :1]), "2+ 3+ 4+", "3+ 4+ 1+"),
    row("add (through a view)", through(lambda y: y.view(2, 3, 2, 2)[:, :, 0]), "2+ 12+", "2+ 3+ 2+"),
    row("add (through a narrow view)", through(lambda y: y.narrow(1, -3, 2)), "2+ 4+", "2+ 2+"),
    row("add (through a row-major view)", through(lambda y: y.flatten(1)), "2+ 3+ 2+", "2+ 6+"),
    row("add (through views that overlap)", overlapping, "2+ 3+ 4+", "2+ 2+ 4+"),
    row("copy (into zeros)", overwritten, "2+ 3+ 4+", "2+ 1+ 4+"),
]
