"""Tables and indices, and tensors made on the spot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, below

from .row import Row, row

aten = torch.ops.aten
INDEX, CONSTANT = Kind.INDEX, Kind.CONSTANT
AT = (anything, below(3))
BY_NUMBER = (INDEX, CONSTANT)


def pooled(mode: str, table: Tensor, index: Tensor) -> Tensor:
    """Bags of rows."""
    return F.embedding_bag(index, table, mode=mode)


ROWS: list[Row] = [
    row("embedding", lambda w, i: F.embedding(i, w), "3. 4+", "2. 2.", why=BY_NUMBER, draw=AT),
    row("embedding_bag", lambda w, i: F.embedding_bag(i, w), "3. 4+", "2. 2.", why=BY_NUMBER, draw=AT),
    row(
        "embedding_bag (sum)", lambda w, i: F.embedding_bag(i, w, mode="sum"), "3. 4+", "2. 2.", why=BY_NUMBER, draw=AT
    ),
    row(
        "embedding_bag (max)", lambda w, i: F.embedding_bag(i, w, mode="max"), "3. 4+", "2. 2.", why=BY_NUMBER, draw=AT
    ),
    row(
        "embedding_bag (weighed)",
        lambda w, i, s: F.embedding_bag(i, w, mode="sum", per_sample_weights=s),
        *("3. 4+", "2. 2.", "2. 2."),
        why=BY_NUMBER,
        draw=(anything, below(3), anything),
    ),
    row(
        "embedding_bag (padding, offsets)",
        lambda w, i, o: F.embedding_bag(i, w, o, padding_idx=1),
        *("3. 4+", "5.", "2."),
        why=BY_NUMBER,
        draw=(anything, below(3), lambda *_: torch.tensor([0, 2])),
    ),
    row("index", lambda x, i: x[:, i], "2+ 3. 4+", "5.", why=BY_NUMBER, draw=AT),
    row("index (two)", lambda x, i: x[i, i], "3. 3. 4+", "2.", why=BY_NUMBER, draw=AT),
    row("index (two apart)", lambda x, i: x[i, :, i], "3. 4+ 3.", "2.", why=BY_NUMBER, draw=AT),
    row("index (a table of numbers)", lambda x, i: x[:, i], "2+ 3. 4+", "2. 2.", why=BY_NUMBER, draw=AT),
    row("index_select", lambda x, i: x.index_select(1, i), "2+ 3. 4+", "5.", why=BY_NUMBER, draw=AT),
    row("gather", lambda x, i: x.gather(1, i), "2. 3.", "2. 4.", why=BY_NUMBER, draw=AT),
    row("take_along_dim", lambda x, i: x.take_along_dim(i, 1), "2. 3.", "2. 4.", why=BY_NUMBER, draw=AT),
    row("take_along_dim (flat)", lambda x, i: x.take_along_dim(i), "2. 3.", "4.", why=BY_NUMBER, draw=AT),
    row("zeros", lambda x: x + torch.zeros((x.shape[0], x.shape[1])), "2+ 3+"),
    row("zeros (cat)", lambda x: torch.cat([x, torch.zeros((x.shape[0], 3))], 1), "2+ 4+"),
    row("new_zeros", lambda x: x + x.new_zeros(3), "2+ 3+"),
    row("ones", lambda x: x * torch.ones((x.shape[0], 1)), "2+ 3+"),
    row("new_ones", lambda x: x - x.new_ones((2, 3)), "2+ 3+"),
    row("full", lambda x: x + torch.full((x.shape[1],), 2.5), "2+ 3+"),
    row("new_full", lambda x: x + x.new_full((3,), 2.5), "2+ 3+"),
    row("zeros_like", lambda x: x + torch.zeros_like(x), "2+ 3+"),
    row("ones_like", lambda x: x + torch.ones_like(x), "2+ 3+"),
    row("full_like", lambda x: x * torch.full_like(x, 2.0), "2+ 3+"),
    row("fill", lambda x: x * x.clone().fill_(2.0), "2+ 3+"),
    row("fill (out of place)", lambda x: x * aten.fill(x, 2.0), "2+ 3+"),
    row("zero_", lambda x: x + x.clone().zero_(), "2+ 3+"),
    row("arange", lambda x: x + torch.arange(x.shape[1]), "2+ 3.", why=CONSTANT),
    row("linspace", lambda x: x + torch.linspace(0, 1, x.shape[1]), "2+ 3.", why=CONSTANT),
    row("logspace", lambda x: x + torch.logspace(0, 1, x.shape[1]), "2+ 3.", why=CONSTANT),
    row("eye", lambda x: x + torch.eye(x.shape[1]), "3. 3.", why=CONSTANT),
    row("rand", lambda x: x + torch.rand(x.shape[1]), "2+ 3.", why=CONSTANT),
    row("randn", lambda x: x + torch.randn(x.shape[1]), "2+ 3.", why=CONSTANT),
    row("randint", lambda x: x + torch.randint(0, 5, (x.shape[1],)), "2+ 3.", why=CONSTANT),
    row("randperm", lambda x: x + torch.randperm(x.shape[1]), "2+ 3.", why=CONSTANT),
    row("rand_like", lambda x: x + torch.rand_like(x), "2. 3.", why=CONSTANT),
    row("randn_like", lambda x: x + torch.randn_like(x), "2. 3.", why=CONSTANT),
    row("bernoulli", lambda x: torch.bernoulli(torch.sigmoid(x)) * x, "2. 3.", why=CONSTANT),
    row("scalar_tensor", lambda x: x * aten.scalar_tensor(x.shape[0]), "2+ 3+"),
    row("empty", lambda x: x + torch.empty(x.shape[1]).fill_(1), "2+ 3.", why=CONSTANT),
    row("new_empty", lambda x: x + x.new_empty(3).fill_(1), "2+ 3.", why=CONSTANT),
    row("empty_like", lambda x: x + torch.empty_like(x).fill_(1), "2. 3.", why=CONSTANT),
    row("tril_indices", lambda x: x + torch.tril_indices(x.shape[0], 2)[0], "2+ 3.", why=CONSTANT),
]
