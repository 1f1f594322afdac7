"""Inception-like networks: parallel branches of different widths, concatenated."""

import torch
from torch import Tensor, nn


class InceptionBlock(nn.Module):
    """Applies 1x1, 3x3, 5x5 and pooling branches in parallel and concatenates their outputs.

    ``widths`` holds the output widths of the four branches, ``reduce`` the widths inside the 3x3 and the 5x5 branch.
    """

    def __init__(self, in_channels: int, *, widths: tuple[int, int, int, int], reduce: tuple[int, int]) -> None:
        super().__init__()
        self.branch1 = _conv(in_channels, widths[0], 1)
        self.branch3 = nn.Sequential(_conv(in_channels, reduce[0], 1), _conv(reduce[0], widths[1], 3))
        self.branch5 = nn.Sequential(_conv(in_channels, reduce[1], 1), _conv(reduce[1], widths[2], 5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(in_channels, widths[3], 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], 1)


class Inception(nn.Module):
    """Classifies images (N, in_channels, H, W) with two inception blocks."""

    def __init__(
        self,
        *,
        stem: int = 8,
        widths1: tuple[int, int, int, int] = (4, 8, 4, 4),
        widths2: tuple[int, int, int, int] = (8, 8, 6, 4),
        reduce: tuple[int, int] = (6, 4),
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = _conv(in_channels, stem, 3)
        self.block1 = InceptionBlock(stem, widths=widths1, reduce=reduce)
        self.block2 = InceptionBlock(sum(widths1), widths=widths2, reduce=reduce)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(sum(widths2), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block2(self.block1(self.stem(x)))
        y = self.fc(torch.flatten(self.avgpool(y), 1))
        return y


def _conv(in_channels: int, out_channels: int, window: int) -> nn.Sequential:
    """Return a convolution that preserves the image size (``0``), its norm (``1``) and its activation (``2``)."""
    conv = nn.Conv2d(in_channels, out_channels, window, padding=window // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
