"""Transformer encoders with a norm after each residual join (post-norm) or before each branch (pre-norm)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PostNormEncoder(nn.Module):
    """Classifies sequences of features (N, T, features) with explicit attention and a norm after every join.

    Queries, keys and values come from one linear layer, viewed as (3, heads, unit).
    """

    def __init__(
        self,
        *,
        features: int = 10,
        length: int = 7,
        width: int = 12,
        heads: int = 2,
        unit: int = 4,
        hidden: int = 16,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(length, width) / 10)
        self.blocks = nn.ModuleList(PostNormBlock(width, heads, unit, hidden) for _ in range(layers))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.embed(x) + self.position
        for block in self.blocks:
            y = block(y)
        y = self.head(y.mean(1))
        return y


class PostNormBlock(nn.Module):
    """Computes norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, width: int, heads: int, unit: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.unit = heads, unit
        self.qkv = nn.Linear(width, 3 * heads * unit)
        self.out = nn.Linear(heads * unit, width)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[0], x.shape[1]
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.unit).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.unit), dim=-1)
        mixed = (scores @ v).transpose(1, 2).reshape(batch, length, self.heads * self.unit)
        y: Tensor = self.norm1(x + self.out(mixed))
        y = self.norm2(y + self.fc2(F.gelu(self.fc1(y))))
        return y


class PreNormEncoder(nn.Module):
    """Classifies sequences of features (N, T, features) with ``nn.MultiheadAttention`` and a norm before each
    branch."""

    def __init__(
        self, *, features: int = 10, width: int = 12, heads: int = 3, hidden: int = 16, layers: int = 2
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.embed(x)
        for block in self.blocks:
            y = block(y)
        y = self.head(self.norm(y).mean(1))
        return y


class PreNormBlock(nn.Module):
    """Computes x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return y
