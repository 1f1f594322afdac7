"""ShuffleNet-like networks: grouped convolutions whose channels are mixed by a fixed permutation."""

import torch
from torch import Tensor, nn


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Shuffle the channels of (N, C, H, W), so that each new group holds channels of every old group."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Implements the unit of ShuffleNet v1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, and an identity skip."""

    def __init__(self, channels: int, *, hidden: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv1 = nn.Conv2d(channels, hidden, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = channel_shuffle(y, self.groups)
        y = self.bn3(self.conv2(self.bn2(self.depthwise(y))))
        y = self.relu(x + y)
        return y


class ShuffleNet(nn.Module):
    """Classifies images (N, in_channels, H, W) with two v1 units; ``groups`` must divide ``width`` and ``hidden``."""

    def __init__(
        self,
        *,
        width: int = 16,
        hidden: tuple[int, int] = (8, 12),
        groups: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.unit1 = ShuffleUnit(width, hidden=hidden[0], groups=groups)
        self.unit2 = ShuffleUnit(width, hidden=hidden[1], groups=groups)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.unit2(self.unit1(self.stem(x)))
        y = self.fc(self.avgpool(y).flatten(1))
        return y


class SplitUnit(nn.Module):
    """Implements the unit of ShuffleNet v2: one half of the channels is passed through, the other is transformed; both
    are concatenated and shuffled."""

    def __init__(self, channels: int, *, hidden: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        passed, y = x.chunk(2, dim=1)
        y = self.relu(self.bn1(self.conv1(y)))
        y = self.bn2(self.depthwise(y))
        y = self.relu(self.bn3(self.conv2(y)))
        return channel_shuffle(torch.cat((passed, y), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """Classifies images (N, in_channels, H, W) with two v2 units; ``width`` is even, and divisible by 4 to keep halves
    aligned.

    The shuffle of the first unit interleaves the halves, so the split of the second unit cuts each in the middle.
    """

    def __init__(
        self, *, width: int = 16, hidden: tuple[int, int] = (8, 12), in_channels: int = 3, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.unit1 = SplitUnit(width, hidden=hidden[0])
        self.unit2 = SplitUnit(width, hidden=hidden[1])
        self.last = nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.unit2(self.unit1(self.stem(x))))
        y = self.fc(y.mean([2, 3]))
        return y
