"""ConvNeXt: depthwise convolutions, channels-last layer norms, a scale on each branch, stochastic depth."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXt(nn.Module):
    """Classifies images (N, 3, H, W), H and W multiples of 4, through two stages of blocks.

    Hidden axes of a block: ``fc1``. The channels of a stage are one stream, normalised before each branch.
    """

    def __init__(
        self, *, widths: Sequence[int] = (8, 12), depths: Sequence[int] = (2, 1), expansion: int = 2, drop: float = 0.2
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 2, stride=2)
        self.stem_norm = ChannelNorm(widths[0])
        self.stage1 = nn.Sequential(*(ConvNeXtBlock(widths[0], expansion, drop) for _ in range(depths[0])))
        self.down_norm = ChannelNorm(widths[0])
        self.down = nn.Conv2d(widths[0], widths[1], 2, stride=2)
        self.stage2 = nn.Sequential(*(ConvNeXtBlock(widths[1], expansion, drop) for _ in range(depths[1])))
        self.norm = nn.LayerNorm(widths[1])
        self.head = nn.Linear(widths[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stage1(self.stem_norm(self.stem(x)))
        y = self.stage2(self.down(self.down_norm(y)))
        y = self.head(self.norm(y.mean((2, 3))))
        return y


class ConvNeXtBlock(nn.Module):
    """Computes x + drop(scale * mlp(norm(depthwise(x)))), with norm and MLP in channels-last layout."""

    def __init__(self, width: int, expansion: int, drop: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, expansion * width)
        self.fc2 = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.fc2(F.gelu(self.fc1(y)))
        y = x + self.drop(y.permute(0, 3, 1, 2))
        return y


class ChannelNorm(nn.LayerNorm):
    """Applies LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class StochasticDepth(nn.Module):
    """Drops the branch of random samples in training mode and scales up the others; the identity in evaluation mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)
