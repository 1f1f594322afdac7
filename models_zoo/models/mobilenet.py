"""MobileNet-like networks: a depthwise convolution ties its input and output widths."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the averages of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.fc2(self.relu(self.fc1(self.avgpool(x)))))
        return scale * x


class InvertedResidual(nn.Module):
    """Expands the channels, applies a depthwise convolution and optionally a gate, and projects back; has a skip where
    shapes allow.

    ``squeezed`` is the inner width of the squeeze-and-excite gate; None leaves the gate out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expanded: int,
        squeezed: int | None,
        stride: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_channels, expanded, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.act1 = activation()
        self.depthwise = nn.Conv2d(expanded, expanded, 3, stride=stride, padding=1, groups=expanded, bias=False)
        self.bn2 = nn.BatchNorm2d(expanded)
        self.act2 = activation()
        self.se = nn.Identity() if squeezed is None else SqueezeExcite(expanded, squeezed)
        self.project = nn.Conv2d(expanded, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.use_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act1(self.bn1(self.expand(x)))
        y = self.act2(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(self.se(y)))
        if self.use_skip:
            y = x + y
        return y


class MobileNet(nn.Module):
    """Classifies images (N, in_channels, H, W) with inverted residual blocks ``block1`` ... ``blockN``.

    ``widths``, ``expanded`` and ``strides`` have one entry per block.
    """

    def __init__(
        self,
        *,
        stem: int = 8,
        widths: Sequence[int] = (8, 12, 12),
        expanded: Sequence[int] = (16, 24, 24),
        strides: Sequence[int] = (1, 2, 1),
        squeezed: int | None = 6,
        activation: Callable[[], nn.Module] = nn.Hardswish,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(stem)
        self.act = activation()
        self.blocks = tuple(f"block{number}" for number in range(1, len(widths) + 1))
        width = stem
        for name, out, inside, stride in zip(self.blocks, widths, expanded, strides, strict=True):
            block = InvertedResidual(
                width, out, expanded=inside, squeezed=squeezed, stride=stride, activation=activation
            )
            self.add_module(name, block)
            width = out
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.stem(x)))
        for name in self.blocks:
            y = self.get_submodule(name)(y)
        y = self.fc(self.avgpool(y).flatten(1))
        return y
