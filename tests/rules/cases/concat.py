"""Sums of axes: concatenation, stacking, and everything that takes a part of an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.functional import adapt_skip

from .row import Row, row

aten = torch.ops.aten
INDEX = Kind.INDEX


def used(*pieces: Tensor) -> Tensor:
    """The first piece, and all others added up in a way that needs no equal sizes."""
    return pieces[0] + sum(piece.sum() for piece in pieces[1:])


MADE = ("6+ 4+", "6+", "3+ 4+")
"""A weight, its bias and what it is applied to."""


def opened_twice(x: Tensor) -> object:
    """Both factors beside one that grows, taken apart one after the other."""
    a, b, c = x.unflatten(1, (2, 2, 3)).unbind(3)
    return a.unbind(1), b.unbind(1), c.unbind(1)


def squeezed(x: Tensor, at: int) -> object:
    """Cut into three pieces of one unit."""
    a, b, c = x.chunk(3, at)
    return a.squeeze(at), b.squeeze(at), c.squeeze(at)


def outer(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], object]:
    """States that differ by an index meet in all its combinations."""

    def call(x: Tensor) -> object:
        y = x.unflatten(1, (3, 2))
        return y[:, 0], function(y.unsqueeze(1), y.unsqueeze(2))

    return call


def gram(y: Tensor) -> object:
    """The same, in a matrix product."""
    return y[:, 0], y @ y.transpose(1, 2)


ROWS: list[Row] = [
    row("cat", lambda x, y: torch.cat([x, y], 1), "2+ 3+ 2+", "2+ 4+ 2+"),
    row("cat (twice the same)", lambda x: torch.cat([x, x * 2], 1), "2+ 3+"),
    row("cat (an empty one)", lambda x, y: torch.cat([x, y], 0), "2+ 3+", "0.", why=Kind.FIXED),
    row("concat", lambda x, y: aten.concat([x, y], -1), "2+ 3+", "2+ 4+"),
    row("concatenate", lambda x, y: aten.concatenate([x, y], 0), "2+ 3+", "4+ 3+"),
    row("cat, then group_norm", lambda x, y: F.group_norm(torch.cat([x, y], 1), 2), "2+ 4.", "2+ 4.", why=Kind.NORM),
    row("stack", lambda x, y: torch.stack([x, y], 1), "2+ 3+", "2+ 3+"),
    row("stack (last)", lambda x, y: torch.stack([x, y], -1).flatten(1), "2+ 3+", "2+ 3+"),
    row("chunk", lambda x: x.chunk(2, 1), "2+ 6+ 2+"),
    row("chunk (uneven)", lambda x: x.chunk(3, 1), "2+ 10+"),
    row("chunk (fewer pieces)", lambda x: x.chunk(5, 1), "2+ 12+"),
    row("chunk (multiplied)", lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], "2+ 6+"),
    row("split", lambda x: x.split(2, 1), "2+ 6+"),
    row("split (uneven)", lambda x: x.split(4, 1), "2+ 6+"),
    row("split (sizes)", lambda x: x.split([2, 4], 1), "2+ 6+"),
    row("split_with_sizes", lambda x: aten.split_with_sizes(x, [2, 1, 3], -1), "2+ 6+"),
    row("split (a piece of two)", lambda x, y, z: torch.cat([x, y, z]).split([5, 4]), "2+", "3+", "4+"),
    row("tensor_split", lambda x: x.tensor_split(3, 1), "2+ 6+"),
    row("tensor_split (uneven)", lambda x: x.tensor_split(3, 1), "2+ 7+"),
    row("tensor_split (places)", lambda x: x.tensor_split([1, 4], 1), "2+ 6+"),
    row("unsafe_chunk", lambda x: aten.unsafe_chunk(x, 2, 1), "2+ 6+"),
    row("unsafe_split", lambda x: aten.unsafe_split(x, 3, 1), "2+ 6+"),
    row("unsafe_split_with_sizes", lambda x: aten.unsafe_split_with_sizes(x, [2, 4], 1), "2+ 6+"),
    row("glu", lambda x: F.glu(x, 1), "2+ 6+ 2+"),
    row("unbind (a last factor)", lambda x: x.unflatten(1, (2, 3)).unbind(2), "2+ 6+"),
    row("unbind (a factor between)", lambda x: x.unflatten(1, (2, 3, 2)).unbind(2), "2+ 12+"),
    row("unbind (two factors)", opened_twice, "2+ 12+"),
    row("unbind (what linear makes)", lambda w, b, x: F.linear(x, w, b).unflatten(1, (2, 3)).unbind(2), *MADE),
    row("unbind (what addmm makes)", lambda w, b, x: torch.addmm(b, x, w.T).unflatten(1, (2, 3)).unbind(2), *MADE),
    row("unbind (repeated)", lambda x: x.unflatten(1, (2, 3))[None].expand(2, -1, -1, -1).unbind(3), "2+ 6+"),
    row("unbind (part of a factor)", lambda x: x.unflatten(1, (2, 3))[:, :, 1:].unbind(2), "2+ 6+"),
    row("unbind (what stack makes)", lambda x, y: torch.stack([x, y], 1).unbind(1), "2+ 3+", "2+ 3+"),
    row("mul (each unit of a factor by each)", outer(torch.mul), "2+ 6+"),
    row("add (each unit of a factor and each)", outer(torch.add), "2+ 6+"),
    row("matmul (each unit of a factor by each)", lambda x: gram(x.unflatten(1, (3, 2))), "2+ 6+"),
    row("chunk (beside a factor)", lambda x: x.unflatten(1, (2, 6)).chunk(3, 2), "2+ 12+"),
    row("chunk (of two factors)", lambda x: x.unflatten(1, (2, 3, 2)).flatten(2).chunk(3, 2), "2+ 12+"),
    row("chunk (a last factor, squeezed)", lambda x: squeezed(x.unflatten(1, (2, 3)), 2), "2+ 6+"),
    row("chunk (a first factor, squeezed)", lambda x: squeezed(x.unflatten(1, (3, 2)), 1), "2+ 6+"),
    row("unbind", lambda x: x.unbind(1), "2+ 3. 4+", why=INDEX),
    row("select", lambda x: x.select(1, 0), "2+ 3. 4+", why=INDEX),
    row("select (written as an index)", lambda x: x[:, -1], "2+ 3. 4+", why=INDEX),
    row("slice (from the start)", lambda x: x[:, :2], "2+ 5+"),
    row("slice (to the end)", lambda x: x[:, 2:], "2+ 5+"),
    row("slice (the last)", lambda x: x[:, -2:], "2+ 5+"),
    row("slice (without the last)", lambda x: x[:, :-1], "2+ 5+"),
    row("slice (the middle)", lambda x: x[:, 1:-1] * x[:, 2:4].sum(), "2+ 6+"),
    row("slice (all)", lambda x: x[:, 0:5], "2+ 5+"),
    row("slice (all but the rows)", lambda x: x[1:, :], "2+ 5+"),
    row("slice (with a stride)", lambda x: x[:, ::2], "2+ 6.", why=INDEX),
    row("slice (nothing)", lambda x: x[:, 5:], "2+ 5+", strict="an empty slice"),
    row("narrow", lambda x: x.narrow(1, 1, 3), "2+ 6+"),
    row("narrow (from the end)", lambda x: x.narrow(1, -3, 2), "2+ 6+"),
    row("narrow (all)", lambda x: x.narrow(1, 0, 6), "2+ 6+"),
    row("halves, swapped", lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "2+ 6+"),
    row("adapt_skip", lambda x: adapt_skip(x, 1, 4, [], 6), "2+ 4+ 2+"),
    row("adapt_skip (at a join)", lambda x, y: adapt_skip(x, 1, 4, [], 6) + y, "2+ 4+ 2+", "2+ 6+ 2+"),
    row("adapt_skip (with copies)", lambda x: adapt_skip(x, 1, 4, [], 6, [(4, 0), (5, 3)]), "2+ 4+ 2+"),
    row("adapt_skip (with pairs)", lambda x: adapt_skip(x, 1, 4, [(4, 1)], 4), "2+ 6+ 2+"),
]
