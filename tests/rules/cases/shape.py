"""Operators that rearrange axes and compute nothing."""

from __future__ import annotations

import torch

from fxgrow.errors import Kind

from .row import Row, row

aten = torch.ops.aten
FIXED, BROADCAST = Kind.FIXED, Kind.BROADCAST

ROWS: list[Row] = [
    row("view", lambda x: x.view(2, 12), "2+ 3+ 4+"),
    row("view (apart)", lambda x: x.view(2, 3, 4, 2), "2+ 12+ 2+"),
    row("view (across)", lambda x: x.view(6, 4), "4. 6.", why=Kind.NON_ALIGNED),
    row("view (-1)", lambda x: x.view(-1, 4), "2+ 3+ 4+"),
    row("view (from the shape)", lambda x: x.view(x.shape[0], -1), "2+ 3+ 4+"),
    row("view (ones)", lambda x: x.view(1, 6, 1, 4), "6+ 4+"),
    row("view (dtype)", lambda x: x.view(torch.int64), "2. 3.", why=Kind.UNKNOWN_OP),
    row("view (channel shuffle)", lambda x: x.view(2, 2, 3, 2).transpose(1, 2).reshape(2, 6, 2), "2+ 6+ 2+"),
    row("_unsafe_view", lambda x: aten._unsafe_view(x, [6, 4]), "2+ 3+ 4+"),
    row("reshape", lambda x: x.transpose(0, 1).reshape(-1), "3+ 4+"),
    row("view_as", lambda x, y: x.view_as(y), "2+ 6+", "2+ 3+ 2+"),
    row("view_as (together)", lambda x, y: x.view_as(y), "2+ 2+ 3+ 2+", "2+ 12+"),
    row("reshape_as", lambda x, y: x.reshape_as(y), "2+ 6+", "4+ 3+"),
    row("flatten", lambda x: x.flatten(1), "2+ 3+ 4+"),
    row("flatten (of all)", torch.flatten, "2+ 3+"),
    row("ravel", torch.ravel, "2+ 3+"),
    row("unflatten", lambda x: x.unflatten(1, (3, 2)), "2+ 6+ 2+"),
    row("unflatten (-1)", lambda x: x.unflatten(-1, (-1, 2)), "2+ 6+"),
    row("unflatten (part of a product)", lambda x: x.flatten(1).unflatten(1, (2, -1)), "2+ 2+ 3+ 2+"),
    row("permute", lambda x: x.permute(2, 0, 1), "2+ 3+ 4+"),
    row("transpose", lambda x: x.transpose(1, -1), "2+ 3+ 4+"),
    row("swapaxes", lambda x: x.swapaxes(0, 1), "2+ 3+"),
    row("swapdims", lambda x: x.swapdims(0, 1), "2+ 3+"),
    row("t", lambda x: x.t(), "2+ 3+"),
    row("t (vector)", lambda x: x.t(), "3+"),
    row("numpy_T", lambda x: x.T, "2+ 3+"),
    row("numpy_T (aten)", lambda x: aten.numpy_T(x), "2+ 3+"),
    row("mT", lambda x: aten.mT(x), "2+ 3+ 4+"),
    row("movedim", lambda x: x.movedim((0, 1), (2, 0)), "2+ 3+ 4+"),
    row("moveaxis", lambda x: x.moveaxis(-1, 1), "2+ 3+ 4+"),
    row("squeeze", lambda x: x.squeeze(), "2+ 1. 3+", why=FIXED),
    row("squeeze (one axis)", lambda x: x.squeeze(1), "1+ 1. 3+", why=FIXED),
    row("squeeze (two axes)", lambda x: x.squeeze((0, 1)), "1. 1. 3+", why=FIXED),
    row("squeeze (a wide axis)", lambda x: x.squeeze(0), "2+ 1+ 3+"),
    row("unsqueeze", lambda x: x.unsqueeze(1), "2+ 3+"),
    row("unsqueeze (last)", lambda x: x.unsqueeze(-1), "2+ 3+"),
    row("expand", lambda x: x.expand(2, 3, 4), "2+ 1. 4+", why=BROADCAST),
    row("expand (-1)", lambda x, y: x.expand(-1, 3, -1) + y, "2+ 1. 4+", "2+ 3+ 4+", why=BROADCAST),
    row("expand (new axis)", lambda x, y: x.expand(2, 3, 4) * y, "3+ 4+", "2+ 3+ 4+"),
    row("expand_as", lambda x, y: x.expand_as(y) + y, "1. 4+", "3+ 4+", why=BROADCAST),
    row("repeat", lambda x: x.repeat(1, 3, 2), "2+ 3+ 2+"),
    row("repeat (new axes)", lambda x, y: x.repeat(3, 1, 2) * y, "2+ 3+", "3+ 2+ 6+"),
    row("repeat (one unit)", lambda x, y: x.repeat(3, 1) + y, "1+ 4+", "3+ 4+"),
    row("repeat (of a concatenation)", lambda x, y: torch.cat([x, y], 1).repeat(1, 2), "2+ 3+", "2+ 2+"),
    row("tile", lambda x: x.tile(1, 3, 2), "2+ 3+ 2+"),
    row("tile (last axes)", lambda x: x.tile(2), "2+ 3+ 2+"),
    row("tile (new axes)", lambda x, y: torch.tile(x, (3, 1, 2)) * y, "2+ 3+", "3+ 2+ 6+"),
    row("repeat_interleave", lambda x: x.repeat_interleave(2, 1), "2+ 3+ 4+"),
    row("repeat_interleave (once)", lambda x: x.repeat_interleave(1, 1), "2+ 3+ 4+"),
    row("repeat_interleave (of all)", lambda x: x.repeat_interleave(2), "2+ 3+"),
    row("repeat_interleave (heads)", lambda x, y: torch.repeat_interleave(x, 2, 1) @ y, "2+ 3+ 4+ 2+", "2+ 6+ 2+ 4+"),
    row("repeat_interleave (of a concatenation)", lambda x, y: torch.cat([x, y]).repeat_interleave(2, 0), "2+", "3+"),
    row("broadcast_tensors", lambda x, y: torch.broadcast_tensors(x, y), "2+ 1. 4+", "3+ 4+", why=BROADCAST),
    row("broadcast_tensors (of one)", lambda x: torch.broadcast_tensors(x)[0], "2+ 3+"),
    row("broadcast_tensors (a sum)", lambda x, y: torch.broadcast_tensors(x, y)[1] * x, "2+ 4+", "4+"),
    row("meshgrid", lambda x, y: torch.meshgrid(x, y, indexing="ij"), "3+", "4+"),
    row("meshgrid (xy)", lambda x, y, z: torch.meshgrid(x, y, z, indexing="xy"), "3+", "4+", "2+"),
    row("meshgrid (twice)", lambda x: torch.meshgrid(x, x, indexing="xy"), "3+"),
    row("meshgrid (a number)", lambda x, y: torch.meshgrid(x, y.sum(), indexing="ij"), "3+", "2+"),
    row("broadcast_to", lambda x, y: torch.broadcast_to(x, (3, 4)) + y, "4+", "3+ 4+"),
]
