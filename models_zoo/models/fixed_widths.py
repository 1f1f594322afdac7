"""Networks in which one hidden layer cannot be widened because its number of channels is fixed from outside the layer.

Each docstring names the refused layer and the reason.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InputResidual(nn.Module):
    """Refuses ``conv2``: it is added to the graph's input, whose width the caller sets; ``conv1`` may grow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        y = self.head(F.relu(y))
        return y


class ReturnedFeatures(nn.Module):
    """Refuses ``conv2``: its features are returned beside the scores, and the caller expects 8; ``conv1`` may grow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(features.mean((2, 3))), features


class SpatialAttention(nn.Module):
    """Refuses ``attend``: its single channel is broadcast over all features, which two channels could not be.

    ``conv1`` may grow: the attention map follows any number of features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.attend = nn.Conv2d(8, 1, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.conv1(x))
        y = self.head(y * torch.sigmoid(self.attend(y)))
        return y


class ListedChannels(nn.Module):
    """Refuses ``conv1``: a list in the source picks and orders its channels by number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x)[:, [2, 0, 1]])
        return y


class OrderedChannels(nn.Module):
    """Refuses ``conv1``: a buffer holds a fixed channel order, which ``index_select`` applies."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.register_buffer("order", torch.tensor([5, 0, 3]))
        self.conv2 = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.index_select(self.conv1(x), 1, self.order))
        return y


class GatheredFeatures(nn.Module):
    """Refuses ``fc1``: an input selects, by index, which of its features each sample uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 8)
        self.fc2 = nn.Linear(3, 4)

    def forward(self, x: Tensor, picks: Tensor) -> Tensor:
        y: Tensor = self.fc2(torch.gather(self.fc1(x), 1, picks))
        return y


class NumberedChannels(nn.Module):
    """Refuses ``conv1``: each call numbers all channels, including new ones, and adds its number to each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(x)
        z: Tensor = self.conv2(F.relu(y + torch.arange(y.shape[1]).view(1, -1, 1, 1)))
        return z
