"""Scaled dot-product attention, and queries, keys and values in one tensor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, flags

from .row import Row, row

SOFTMAX, INDEX = Kind.SOFTMAX, Kind.INDEX
attention = F.scaled_dot_product_attention


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two heads of queries for each of keys and values."""
    return attention(q, k, v, enable_gqa=True)


def packed(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Queries, keys and values from one weight of (3 h d) rows, heads taken apart and put together again."""
    q, k, u = F.linear(x, w).view(2, 2, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
    return F.linear(attention(q, k, u).transpose(1, 2).reshape(2, 2, 4), v)


def selected(w: Tensor) -> Tensor:
    """A product of two of three parts, summed."""
    x = w.tanh().view(3, 4, 2)
    return (x[0] * x[1]).sum(0) + x[2].sum(0)


def bent(w: Tensor) -> Tensor:
    """A function of all three parts that keeps no sign, then the parts."""
    x, y, z = F.relu(w.view(3, 4)).unbind(0)
    return x * y * z


def joined(w: Tensor) -> Tensor:
    """Three parts side by side."""
    x, y, z = w.view(3, 4).unbind(0)
    return torch.cat([x, y, z])


def added(w: Tensor) -> Tensor:
    """The sum of three parts."""
    x, y, z = w.view(3, 4).unbind(0)
    return x + y + z


def chunked(w: Tensor) -> Tensor:
    """The product of three parts, cut into pieces of one."""
    x, y, z = w.view(3, 4).chunk(3)
    return x[0] * y[0] * z[0]


def sliced(w: Tensor) -> Tensor:
    """The same by slices."""
    x = w.view(3, 4)
    return x[:1][0] * x[1:2][0] * x[2:][0]


SHAPES = ("2+ 2+ 3+ 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+")
ROWS: list[Row] = [
    row("scaled_dot_product_attention", attention, *SHAPES, why=SOFTMAX),
    row("scaled_dot_product_attention (scale)", lambda q, k, v: attention(q, k, v, scale=0.3), *SHAPES, why=SOFTMAX),
    row("scaled_dot_product_attention (two axes)", attention, "3+ 4+", "5. 4+", "5. 2+", why=SOFTMAX),
    row(
        "scaled_dot_product_attention (a mask for all heads)",
        lambda q, k, v, m: attention(q, k, v, m),
        *("2+ 2+ 3+ 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+", "3+ 5."),
        why=SOFTMAX,
    ),
    row(
        "scaled_dot_product_attention (a mask for each head)",
        lambda q, k, v, m: attention(q, k, v, m),
        *("2+ 2+ 3+ 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+", "2+ 3+ 5."),
        why=SOFTMAX,
    ),
    row(
        "scaled_dot_product_attention (truth values)",
        lambda q, k, v, m: attention(q, k, v, m),
        *("2+ 2+ 3. 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+", "3. 5."),
        why=(SOFTMAX, Kind.CONSTANT),
        draw=(anything, anything, anything, flags),
    ),
    row(
        "scaled_dot_product_attention (causal)",
        lambda q, k, v: attention(q, k, v, is_causal=True),
        *("2+ 2+ 3. 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+"),
        why=(SOFTMAX, INDEX),
    ),
    row("scaled_dot_product_attention (grouped)", grouped, "2+ 4+ 3+ 4+", "2+ 2+ 5. 4+", "2+ 2+ 5. 3+", why=SOFTMAX),
    row("scaled_dot_product_attention (packed)", packed, "2+ 2. 3+", "12+ 3+", "5+ 4+", why=SOFTMAX),
    row("select (parts of a product)", selected, "24+"),
    row("unbind (parts of a product)", bent, "12+"),
    row("unbind (parts that are added up)", added, "12+"),
    row("cat (parts of a product)", joined, "12+"),
    row("chunk (parts of a product)", chunked, "12+"),
    row("slice (parts of a product)", sliced, "12+"),
]
