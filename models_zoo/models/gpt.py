"""A current language model: rotary positions, RMSNorm, SwiGLU, grouped-query attention, a tied output head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GPT(nn.Module):
    """Predicts the next token of token ids (N, T).

    The residual stream has ``width`` features. Each of ``groups`` key-value heads serves ``heads / groups`` query
    heads; a head has ``unit`` features, whose two halves are rotated by position. The output head is the transposed
    embedding.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        *,
        tokens: int = 24,
        length: int = 9,
        width: int = 16,
        heads: int = 4,
        groups: int = 2,
        unit: int = 6,
        hidden: int = 20,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads, groups, unit, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight
        speeds = 100.0 ** -(torch.arange(unit // 2) / (unit // 2))
        angles = torch.arange(length)[:, None] * speeds
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        y: Tensor = self.embed(tokens)
        cos, sin = self.cos.type_as(y)[:length], self.sin.type_as(y)[:length]
        for block in self.blocks:
            y = block(y, cos, sin)
        y = self.head(self.norm(y))
        return y


class Block(nn.Module):
    """Applies attention and a gated MLP, each with a norm before it and a skip connection."""

    def __init__(self, width: int, heads: int, groups: int, unit: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, groups, unit)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        y: Tensor = self.norm2(x)
        y = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return y


class Attention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, width: int, heads: int, groups: int, unit: int) -> None:
        super().__init__()
        self.heads, self.groups, self.unit = heads, groups, unit
        self.q = nn.Linear(width, heads * unit, bias=False)
        self.k = nn.Linear(width, groups * unit, bias=False)
        self.v = nn.Linear(width, groups * unit, bias=False)
        self.out = nn.Linear(heads * unit, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length = x.shape[0], x.shape[1]
        q = self.q(x).view(batch, length, self.heads, self.unit).transpose(1, 2)
        k = self.k(x).view(batch, length, self.groups, self.unit).transpose(1, 2)
        v = self.v(x).view(batch, length, self.groups, self.unit).transpose(1, 2)
        q, k = rotated(q, cos, sin), self.repeated(rotated(k, cos, sin))
        y: Tensor = F.scaled_dot_product_attention(q, k, self.repeated(v), is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(batch, length, self.heads * self.unit))
        return y

    def repeated(self, x: Tensor) -> Tensor:
        """Repeat each key-value head once for each query head that it serves."""
        batch, length, each = x.shape[0], x.shape[2], self.heads // self.groups
        wide = x[:, :, None].expand(batch, self.groups, each, length, self.unit)
        return wide.reshape(batch, self.heads, length, self.unit)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of features (k in the first half, k in the second half) by the angle of their position."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
