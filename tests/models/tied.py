"""Small language models whose embeddings are also read as the weights of a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

WORDS, WIDTH = 11, 8


class Tied(nn.Module):
    """A stream of embeddings with one branch, read by the embeddings."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.words, self.norm, self.last = nn.Embedding(WORDS, WIDTH, padding_idx=0), norm(WIDTH), norm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        y = y + self.down(F.gelu(self.up(self.norm(y))))
        z: Tensor = self.head(self.last(y))
        return z


class TwiceRead(nn.Module):
    """Embeddings that a layer reads, and the embeddings themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up = nn.Embedding(WORDS, WIDTH, padding_idx=0), nn.Linear(WIDTH, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        z: Tensor = F.gelu(self.up(y)) + F.linear(y.tanh(), self.words.weight)
        return z


class Thrice(Tied):
    """A stream that is read behind its norm and as it is, by the embeddings and by a layer."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        y = y + self.down(F.gelu(self.up(self.norm(y))))
        z: Tensor = self.head(self.last(y)) + self.head(y) + self.up(y).mean(-1, keepdim=True)
        return z
