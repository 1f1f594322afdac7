"""Small networks around weights that are no plain matrices: of three axes, or computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pairs(nn.Module):
    """A map of two volumes at once, which may be one."""

    def __init__(self, *, one: bool) -> None:
        super().__init__()
        self.writer, self.other, self.one = nn.Linear(6, 4), nn.Linear(6, 4 if one else 5), one
        self.pairs, self.last = nn.Bilinear(4, 4 if one else 5, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.writer(x))
        z: Tensor = self.last(torch.tanh(self.pairs(y, y if self.one else self.other(x))))
        return z


class Monotone(nn.Module):
    """Weights that are a function of the parameters, never negative, say."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.writer, self.reader, self.function = nn.Linear(6, 8), nn.Linear(8, 3), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.linear(torch.sigmoid(self.writer(x)), self.function(self.reader.weight), self.reader.bias)
        return y
