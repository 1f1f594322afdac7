"""Operators that sum products over an axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fxgrow.errors import Kind

from .row import Row, row

WINDOW = Kind.WINDOW

ROWS: list[Row] = [
    row("conv1d", F.conv1d, "2+ 4+ 5.", "6+ 4+ 3.", "6+", why=WINDOW),
    row("conv1d (unbatched)", F.conv1d, "4+ 5.", "6+ 4+ 3.", why=WINDOW),
    row("conv2d", lambda x, w, b: F.conv2d(x, w, b, 2, 1), "2+ 4+ 3. 3.", "6+ 4+ 3. 3.", "6+", why=WINDOW),
    row("conv1d (of one unit)", F.conv1d, "2+ 4+ 5+", "6+ 4+ 1.", "6+", why=WINDOW),
    row(
        "conv1d (of one unit, unbatched)", lambda x, w: F.conv1d(x, w, padding="same"), "4+ 5+", "6+ 4+ 1.", why=WINDOW
    ),
    row("conv1d (of one unit, padded)", lambda x, w: F.conv1d(x, w, padding=1), "2+ 4+ 5.", "6+ 4+ 1.", why=WINDOW),
    row("conv1d (every second unit)", lambda x, w: F.conv1d(x, w, stride=2), "2+ 4+ 5.", "6+ 4+ 1.", why=WINDOW),
    row("conv2d (same)", lambda x, w: F.conv2d(x, w, padding="same"), "2+ 4+ 3. 3.", "6+ 4+ 3. 3.", why=WINDOW),
    row(
        "conv2d (grouped)", lambda x, w, b: F.conv2d(x, w, b, groups=2), "2+ 4+ 2+ 2+", "6+ 2+ 1. 1.", "6+", why=WINDOW
    ),
    row(
        "conv2d (depthwise)",
        lambda x, w: F.conv2d(x, w, groups=4),
        *("2+ 4+ 3. 3.", "4+ 1. 3. 3."),
        why=(WINDOW, Kind.FIXED),
    ),
    row(
        "conv2d (depthwise, two each)",
        lambda x, w, b: F.conv2d(x, w, b, groups=4),
        *("2+ 4+ 3. 3.", "8+ 1. 3. 3.", "8+"),
        why=(WINDOW, Kind.FIXED),
    ),
    row("conv3d", F.conv3d, "1+ 2+ 2. 2+ 2+", "4+ 2+ 2. 1. 1.", "4+", why=WINDOW),
    row("conv_transpose1d", F.conv_transpose1d, "2+ 4+ 5.", "4+ 6+ 3.", "6+", why=WINDOW),
    row("conv_transpose2d", lambda x, w: F.conv_transpose2d(x, w, stride=2), "2+ 4+ 2. 2.", "4+ 6+ 2. 2.", why=WINDOW),
    row(
        "conv_transpose2d (grouped)",
        lambda x, w, b: F.conv_transpose2d(x, w, b, groups=2),
        *("2+ 4+ 2. 2.", "4+ 3+ 2. 2.", "6+"),
        why=WINDOW,
    ),
    row("conv_transpose3d", F.conv_transpose3d, "1+ 2+ 2+ 2. 2+", "2+ 4+ 1. 2. 1.", "4+", why=WINDOW),
    row(
        "conv_transpose1d (padded at the end)",
        lambda x, w: F.conv_transpose1d(x, w, stride=2, output_padding=1),
        *("2+ 4+ 5.", "4+ 6+ 1."),
        why=WINDOW,
    ),
    row("linear", F.linear, "3+ 4+", "6+ 4+", "6+"),
    row("linear (more axes)", F.linear, "2+ 3+ 4+", "6+ 4+", "6+"),
    row("linear (vector)", F.linear, "4+", "6+ 4+"),
    row("linear (one output)", F.linear, "2+ 4+", "4+"),
    row("bilinear", F.bilinear, "3+ 4+", "3+ 5+", "6+ 4+ 5+", "6+"),
    row("bilinear (more axes, no bias)", F.bilinear, "2+ 3+ 4+", "2+ 3+ 5+", "6+ 4+ 5+"),
    row("bilinear (of one)", lambda x, w, b: F.bilinear(x, x, w, b), "3+ 4+", "6+ 4+ 4+", "6+"),
    row("matmul", torch.matmul, "3+ 4+", "4+ 5+"),
    row("matmul (batched)", torch.matmul, "2+ 3+ 4+", "2+ 4+ 5+"),
    row("matmul (broadcast)", torch.matmul, "2+ 2+ 3+ 4+", "2+ 4+ 5+"),
    row("matmul (broadcast unit)", torch.matmul, "2+ 3+ 4+", "1. 4+ 5+", why=Kind.BROADCAST),
    row("matmul (vector)", torch.matmul, "2+ 3+ 4+", "4+"),
    row("matmul (vectors)", torch.matmul, "4+", "4+"),
    row("matmul (vector first)", torch.matmul, "4+", "4+ 5+"),
    row("matmul (with itself)", lambda x: x @ x.transpose(0, 1), "3+ 4+"),
    row("mm", torch.mm, "3+ 4+", "4+ 5+"),
    row("mv", torch.mv, "3+ 4+", "4+"),
    row("bmm", torch.bmm, "2+ 3+ 4+", "2+ 4+ 5+"),
    row("addmm", torch.addmm, "5+", "3+ 4+", "4+ 5+"),
    row("addmm (beta)", lambda c, x, y: torch.addmm(c, x, y, beta=2, alpha=-1), "3+ 5+", "3+ 4+", "4+ 5+"),
    row("baddbmm", torch.baddbmm, "2+ 3+ 5+", "2+ 3+ 4+", "2+ 4+ 5+"),
    row("baddbmm (broadcast)", torch.baddbmm, "1. 5+", "2+ 3+ 4+", "2+ 4+ 5+", why=Kind.BROADCAST),
    row("einsum", lambda x, w: torch.einsum("bij,kj->bki", x, w), "2+ 3+ 4+", "5+ 4+"),
    row("einsum (implicit)", lambda x, w: torch.einsum("ij,jk", x, w), "3+ 4+", "4+ 5+"),
    row("einsum (ellipsis)", lambda x, w: torch.einsum("...i,oi->...o", x, w), "2+ 3+ 4+", "5+ 4+"),
    row("einsum (heads)", lambda x, w: torch.einsum("bnc,chd->bnhd", x, w), "2+ 3+ 4+", "4+ 2+ 3+"),
    row("einsum (weights first)", lambda w, x: torch.einsum("oc,bnc->bno", w, x), "5+ 4+", "2+ 3+ 4+"),
    row("einsum (three)", lambda x, y, z: torch.einsum("bi,bi,i->b", x, y, z), "2+ 4+", "2+ 4+", "4+"),
    row("einsum (a sum)", lambda x: torch.einsum("ij->i", x), "3+ 4+"),
    row("einsum (diagonal)", lambda x: torch.einsum("ii->i", x), "4. 4.", why=Kind.UNKNOWN_OP),
]
