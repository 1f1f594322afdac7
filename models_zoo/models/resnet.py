"""Residual networks with one block per layer, so that every residual join has a short name for tests.

Module names follow torchvision: ``conv1``, ``bn1``, ``relu``, (``maxpool``), ``layer1`` ... ``layerN``, ``avgpool``,
``fc``; inside a block ``conv1``, ``bn1``, ``relu``, ``conv2``, ``bn2``, (``conv3``, ``bn3``) and ``downsample`` (``0``
the convolution, ``1`` the norm). Here each ``layerN`` *is* a block, so a path reads ``layer2.conv1``.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Returns the norm for a number of channels."""


class Block(Protocol):
    """Builds one residual block; ``hidden`` is None for the block's own default."""

    def __call__(
        self, in_channels: int, out_channels: int, *, hidden: int | tuple[int, int] | None, stride: int, norm: Norm
    ) -> nn.Module: ...


class BasicBlock(nn.Module):
    """Applies two 3x3 convolutions beside a skip; ``hidden`` is the width between them, by default the output width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int | tuple[int, int] | None = None,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if isinstance(hidden, tuple):
            raise TypeError(f"a basic block has one hidden width, got {hidden}")
        hidden = out_channels if hidden is None else hidden
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(hidden)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        self.bn2 = norm(out_channels)
        self.downsample = _skip(in_channels, out_channels, stride=stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        skip: Tensor = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)) + skip)
        return y


class Bottleneck(nn.Module):
    """Applies a 3x3 convolution between two 1x1 ones, beside a skip; with ``groups`` > 1 it is the ResNeXt block.

    ``hidden`` is the width inside, by default a quarter of the output width; a pair sets the widths after ``conv1`` and
    after ``conv2`` separately. Both must be divisible by ``groups``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int | tuple[int, int] | None = None,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        groups: int = 1,
    ) -> None:
        super().__init__()
        hidden = out_channels // 4 if hidden is None else hidden
        first, second = hidden if isinstance(hidden, tuple) else (hidden, hidden)
        self.conv1 = nn.Conv2d(in_channels, first, 1, bias=False)
        self.bn1 = norm(first)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(first, second, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = norm(second)
        self.conv3 = nn.Conv2d(second, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample = _skip(in_channels, out_channels, stride=stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        skip: Tensor = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.relu(self.bn3(self.conv3(y)) + skip)
        return y


class ResNet(nn.Module):
    """Classifies images (N, in_channels, H, W) with one residual block per layer; every width can be set separately.

    ``widths`` holds the output width of each layer, ``strides`` their strides (one for one), ``hidden`` the widths
    inside the blocks (None: the block's default), ``stem`` the width of ``conv1`` (None: the first of ``widths``). A
    layer has an identity skip where its stride is 1 and its input and output widths agree, and a ``downsample``
    elsewhere; by default ``layer1`` and ``layer3`` have the former, ``layer2`` and ``layer4`` the latter.

    Raises ValueError where ``widths``, ``strides`` and ``hidden`` differ in length.
    """

    def __init__(
        self,
        *,
        block: Block = BasicBlock,
        widths: Sequence[int] = (16, 32, 32, 64),
        hidden: Sequence[int | tuple[int, int]] | None = None,
        strides: Sequence[int] = (1, 2, 1, 2),
        stem: int | None = None,
        in_channels: int = 1,
        num_classes: int = 10,
        norm: Norm = nn.BatchNorm2d,
        maxpool: bool = False,
    ) -> None:
        super().__init__()
        inner = [None] * len(widths) if hidden is None else list(hidden)
        if not len(widths) == len(strides) == len(inner):
            raise ValueError(f"one entry a layer: got widths {widths}, strides {strides}, hidden {hidden}")
        width = widths[0] if stem is None else stem
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if maxpool else None
        self.layers = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        for name, out, inside, stride in zip(self.layers, widths, inner, strides, strict=True):
            self.add_module(name, block(width, out, hidden=inside, stride=stride, norm=norm))
            width = out
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            y = self.maxpool(y)
        for name in self.layers:
            y = self.get_submodule(name)(y)
        y = self.fc(self.avgpool(y).flatten(1))
        return y


def _skip(in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> nn.Sequential | None:
    """Return the projection of a skip that changes the shape, or None where the identity suffices."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), norm(out_channels))
