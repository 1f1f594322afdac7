"""Small networks around every kind of attention that torch offers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, TOKENS = 8, 2, 5


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with every parameter drawn, so that none is a trivial zero or one."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        nn.init.uniform_(parameter, -0.6, 0.8, generator=random)
    return model.eval()


class Module(nn.Module):
    """nn.MultiheadAttention in a pre-norm stream, with or without masks, dropout, batch first."""

    def __init__(self, *, dropout: float = 0.0, batch_first: bool = True, masked: bool = False) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(6, WIDTH), nn.LayerNorm(WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, dropout=dropout, batch_first=batch_first)
        self.leave = nn.Linear(WIDTH, 3)
        self.masked = masked
        self.causal: Tensor
        self.padding: Tensor
        self.register_buffer("causal", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))
        self.register_buffer("padding", torch.tensor([[False] * TOKENS, [False] * 3 + [True] * 2]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = self.norm(x)
        masks = {"attn_mask": self.causal, "key_padding_mask": self.padding} if self.masked else {}
        y, _ = self.attend(y, y, y, need_weights=False, **masks)
        out: Tensor = self.leave(x + y)
        return out


class Cross(nn.Module):
    """nn.MultiheadAttention whose keys come from elsewhere, with widths of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, WIDTH), nn.Linear(4, 6)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, kdim=6, vdim=6)
        self.leave = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        memory = self.b(y)
        out: Tensor = self.leave(self.attend(self.a(x), memory, memory, need_weights=False)[0])
        return out


class Packed(nn.Module):
    """One linear layer for queries, keys and values, told apart by an axis of three; softmax written out."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm, *, tied: bool = False) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(11, WIDTH), norm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.last, self.head = norm(WIDTH), nn.Linear(WIDTH, 11, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        packed = self.qkv(self.norm(x)).reshape(x.shape[0], x.shape[1], 3, HEADS, WIDTH // HEADS)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, -1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
        out: Tensor = self.head(self.last(x))
        return out


class Functional(nn.Module):
    """scaled_dot_product_attention with its default scale, keys and values shared by groups of heads if `grouped`."""

    def __init__(self, *, grouped: bool = False) -> None:
        super().__init__()
        heads = 2 if grouped else 4
        self.table = nn.Embedding(11, WIDTH)
        self.scale, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.q, self.k, self.v = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 4 * heads), nn.Linear(WIDTH, 4 * heads)
        self.project, self.head = nn.Linear(16, WIDTH), nn.Linear(WIDTH, 11)
        self.grouped, self.heads = grouped, heads

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.layer_norm(self.table(tokens), self.scale.shape, self.scale, self.shift)
        q = self.q(x).unflatten(-1, (4, -1)).transpose(1, 2)
        k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        out: Tensor = self.head(x + self.project(y.transpose(1, 2).flatten(2)))
        return out


class Forward(nn.Module):
    """F.multi_head_attention_forward, called with the parameters of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.packed, self.bias = nn.Parameter(torch.zeros(3 * WIDTH, WIDTH)), nn.Parameter(torch.zeros(3 * WIDTH))
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y, _ = F.multi_head_attention_forward(
            x, x, x, WIDTH, HEADS, self.packed, self.bias, None, None, False, 0.0,
            self.project.weight, self.project.bias, need_weights=False,
        )  # fmt: skip
        out: Tensor = self.leave(x + y)
        return out


class Options(nn.Module):
    """nn.MultiheadAttention with any of its options, in a pre-norm stream; its weights are an output if it has any."""

    def __init__(
        self, *, needs: bool = True, each: bool = False, masks: str = "", memory: int = 0, **options: Any
    ) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(6, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.remember = nn.Linear(6, memory) if memory else None
        widths = {"kdim": memory, "vdim": memory} if memory not in (0, WIDTH) else {}
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **widths, **options})
        self.needs, self.each, self.masks = needs, each, masks
        self.causal: Tensor
        self.padding: Tensor
        causal = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        if "float" in masks:
            causal = torch.linspace(-1, 1, TOKENS**2).reshape(TOKENS, TOKENS)
        self.register_buffer("causal", causal.expand(2 * HEADS, -1, -1) if "each" in masks else causal)
        self.register_buffer("padding", torch.tensor([[False] * TOKENS, [False] * 3 + [True] * 2]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        memory = self.remember(x) if self.remember is not None else None
        x = self.enter(x)
        query = self.norm(x)
        keys = query if memory is None else memory
        masks = {"attn_mask": self.causal} if "mask" in self.masks else {}
        masks |= {"key_padding_mask": self.padding} if "padding" in self.masks else {}
        y, weights = self.attend(
            query, keys, keys, need_weights=self.needs, average_attn_weights=not self.each, **masks
        )
        out = self.leave(x + y)
        return (out, weights.amax(-1)) if self.needs else (out,)


OPTIONS: dict[str, dict[str, Any]] = {
    "weights": {},
    "weights of each head": {"each": True},
    "a zero key": {"needs": False, "add_zero_attn": True},
    "a zero key, weights, masks": {"add_zero_attn": True, "masks": "mask padding"},
    "a learned key": {"needs": False, "add_bias_kv": True},
    "a learned key and a zero key, a mask of numbers": {
        "add_bias_kv": True,
        "add_zero_attn": True,
        "masks": "float mask",
    },
    "a mask for each head, weights of each head": {"masks": "mask for each head", "each": True},
    "masks, the batch second": {"masks": "mask padding", "batch_first": False, "add_bias_kv": True},
    "keys of another width": {"memory": 6, "add_bias_kv": True, "masks": "padding"},
    "keys from elsewhere": {"memory": WIDTH, "add_zero_attn": True},
    "no biases": {"bias": False, "each": True},
}
