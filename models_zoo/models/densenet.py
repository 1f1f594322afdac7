"""DenseNet-like networks: every layer reads the concatenation of all preceding features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Computes ``growth`` new channels from all preceding channels and appends them."""

    def __init__(self, in_channels: int, *, hidden: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.conv1(self.relu(self.norm1(x)))
        new = self.conv2(self.relu(self.norm2(new)))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """Reduces the concatenated channels to ``out_channels`` and halves the image size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.conv(self.relu(self.norm(x))))
        return y


class DenseNet(nn.Module):
    """Classifies images (N, in_channels, H, W) with two dense blocks and a transition between them.

    ``growth1`` and ``growth2`` hold the number of channels that each layer of ``block1`` and ``block2`` appends.
    """

    def __init__(
        self,
        *,
        stem: int = 8,
        hidden: int = 12,
        growth1: Sequence[int] = (8, 8),
        growth2: Sequence[int] = (8, 8),
        between: int = 12,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.block1 = _dense_block(stem, hidden=hidden, growth=growth1)
        self.transition = Transition(stem + sum(growth1), between)
        self.block2 = _dense_block(between, hidden=hidden, growth=growth2)
        width = between + sum(growth2)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block2(self.transition(self.block1(self.stem(x))))
        y = torch.flatten(self.avgpool(self.relu(self.norm(y))), 1)
        y = self.classifier(y)
        return y


def _dense_block(in_channels: int, *, hidden: int, growth: Sequence[int]) -> nn.Sequential:
    layers = [
        DenseLayer(in_channels + sum(growth[:number]), hidden=hidden, growth=new) for number, new in enumerate(growth)
    ]
    return nn.Sequential(*layers)
