"""Networks in which one hidden layer cannot be widened by r2r because an operation mixes or misreads its channels.

Each docstring names the refused layer and the reason. Layers whose width is fixed from outside (by a graph input or
output, an index, a constant) are in ``fixed_widths``.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operators import subtract_sum


class FeatureLayerNorm(nn.Module):
    """Refuses ``fc1`` to scheme r2r: LayerNorm normalises over its features, and equal halves change mean and variance.

    Scheme mean sets new features to the mean of the old ones: the mean stays, the variance shrinks by a known factor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 16)
        self.norm = nn.LayerNorm(16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.relu(self.norm(self.fc1(x))))
        return y


class ChannelLayerNorm(nn.Module):
    """Refuses ``conv1`` to scheme r2r: the channels are moved last and normalised together, as in ConvNeXt.

    Scheme mean grows it; ``conv2`` may grow with any scheme.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.conv2 = nn.Conv2d(8, 12, 1)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.head(F.gelu(self.conv2(y)))
        return y


class ChannelSoftmax(nn.Module):
    """Refuses ``conv1`` to scheme r2r: a softmax over the channels normalises over all of them.

    Scheme net2net grows it to two or three times the width: each channel gets equally many copies, which share its
    weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.softmax(self.conv1(x), dim=1))
        return y


class ChannelStatistic(nn.Module):
    """Refuses ``conv1``: a mean, maximum or argmax over its channels is the output, and no weight
    can mask new channels."""

    def __init__(self, *, statistic: Literal["mean", "max", "argmax"] = "mean") -> None:
        super().__init__()
        self.statistic = statistic
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        match self.statistic:
            case "mean":
                return y.mean(1)
            case "max":
                return y.max(dim=1).values
            case "argmax":
                return y.argmax(dim=1)


class ChannelSpectrum(nn.Module):
    """Refuses ``conv1``: a Fourier transform runs along its channels, and every frequency depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.fft.fft(self.conv1(x), dim=1).real)
        return y


class CustomOperator(nn.Module):
    """Refuses ``fc1``: a custom operator, which has no rule, subtracts the sum of all its units."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(subtract_sum(self.fc1(x), 1))
        return y


class StraddlingGroupNorm(nn.Module):
    """Refuses ``left``: GroupNorm splits 10 + 6 channels into groups of four, and one group holds some of each.

    Whole groups can be added in front of that one, so ``right`` may grow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 10, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.cat([self.right(x), self.left(x)], dim=1))
        y = self.head(F.relu(y))
        return y


class StraddlingView(nn.Module):
    """Refuses ``left`` and ``right``: a view splits 6 + 6 channels into three groups of
    four; a window slides over them."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv3d(3, 4, (4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cat([self.left(x), self.right(x)], dim=1)
        y = self.head(F.relu(y.view(y.shape[0], 3, 4, y.shape[2], y.shape[3])))
        return y


class Regrouped(nn.Module):
    """Refuses ``conv1``: one consumer reads its channels as three groups of four, another as four groups of three."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.fours = nn.Conv2d(12, 12, 1, groups=3)
        self.threes = nn.Conv2d(12, 12, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        z: Tensor = self.fours(y).mean((2, 3)) + self.threes(y).amax((2, 3))
        return z


class ChannelPool(nn.Module):
    """Refuses ``conv1``: a pooling window slides along its channels and averages neighbours in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.conv1(x)).unsqueeze(1)
        y = self.conv2(F.avg_pool3d(y, (2, 1, 1)).squeeze(1))
        return y


class LocalResponse(nn.Module):
    """Refuses ``conv1``: local response normalisation divides a channel by the energy of its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LocalResponseNorm(3)
        self.conv2 = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.norm(F.relu(self.conv1(x))))
        return y


class UnweightedSum(nn.Module):
    """Refuses ``conv1``: its channels are summed directly, so no layer reads them with weights that could adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv1(x)).sum(1)
