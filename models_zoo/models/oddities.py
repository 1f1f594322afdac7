"""Small networks, each with one construct that a pass over convolutions and linear layers must handle."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoInTwoOut(nn.Module):
    """Combines an image (N, 3, H, W) and a vector (N, 6), and returns class scores and a value."""

    def __init__(self, *, width: int = 12, joined: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.fc = nn.Linear(6, width)
        self.join = nn.Linear(2 * width, joined)
        self.scores = nn.Linear(joined, 4)
        self.value = nn.Linear(joined, 1)

    def forward(self, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.adaptive_avg_pool2d(F.relu(self.conv(image)), 1).flatten(1)
        told = F.relu(self.fc(vector))
        y = F.relu(self.join(torch.cat([seen, told], dim=-1)))
        return self.scores(y), self.value(y)


class Conv1dNet(nn.Module):
    """Classifies signals (N, 2, L) with dilated, strided and pooled convolutions along one axis."""

    def __init__(self, *, widths: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, widths[0], 5, padding=4, dilation=2)
        self.bn1 = nn.BatchNorm1d(widths[0])
        self.pool = nn.MaxPool1d(2)
        self.conv2 = nn.Conv1d(widths[0], widths[1], 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm1d(widths[1])
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(widths[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(F.leaky_relu(self.bn1(self.conv1(x)), 0.1))
        y = F.elu(self.bn2(self.conv2(y)))
        y = self.fc(self.avgpool(y).squeeze(-1))
        return y


class Conv3dNet(nn.Module):
    """Classifies volumes (N, 1, D, H, W) with three-dimensional convolutions, norm and pooling."""

    def __init__(self, *, widths: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, widths[0], 3, padding=1)
        self.bn1 = nn.BatchNorm3d(widths[0])
        self.pool = nn.AvgPool3d(2)
        self.conv2 = nn.Conv3d(widths[0], widths[1], 3, padding=1)
        self.fc = nn.Linear(widths[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(F.silu(self.bn1(self.conv1(x))))
        y = F.silu(self.conv2(y)).mean(dim=(2, 3, 4))
        y = self.fc(y)
        return y


class GatedConv(nn.Module):
    """Splits the channels of ``conv`` into values and gates; each new value channel needs a new gate channel.

    The split is a chunk and a sigmoid, or, with ``functional``, one call of ``F.glu``.
    """

    def __init__(self, *, width: int = 8, functional: bool = False) -> None:
        super().__init__()
        self.functional = functional
        self.conv = nn.Conv2d(3, 2 * width, 3, padding=1)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.functional:
            y = F.glu(y, dim=1)
        else:
            value, gate = y.chunk(2, dim=1)
            y = value * torch.sigmoid(gate)
        y = self.head(y)
        return y


class MeanGate(nn.Module):
    """Implements squeeze-and-excite without pooling modules: mean over the pixels, linear layers, unsqueeze,
    multiply."""

    def __init__(self, *, width: int = 12, squeezed: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.squeeze = nn.Linear(width, squeezed)
        self.excite = nn.Linear(squeezed, width)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.conv(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        y = self.head(y * gate[:, :, None, None])
        return y


class ChannelPReLU(nn.Module):
    """Applies PReLU with a slope per channel, so that the activation has a parameter that grows with the width."""

    def __init__(self, *, width: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.prelu(self.conv1(x)))
        return y


class ResizeAndPad(nn.Module):
    """Resizes, pads and crops images between convolutions; these operations affect pixels only, not channels."""

    def __init__(self, *, widths: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 2, 0))
        self.conv1 = nn.Conv2d(3, widths[0], 3)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3)
        self.head = nn.Conv2d(widths[1], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.conv1(self.pad(x)))
        y = F.interpolate(y, size=(12, 12), mode="bilinear", align_corners=True)
        y = self.conv2(F.pad(self.pad(y), (1, 1, 1, 1), mode="reflect"))
        y = self.head(F.relu(F.pad(self.upsample(y), (0, -1, 0, 0))))
        return y
