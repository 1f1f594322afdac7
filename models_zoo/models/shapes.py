"""Networks that compute with sizes, or that contract axes with einsum and matmul instead of layers."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """Mixes the tokens and then the features of (N, tokens, features), with einsum and matmul on plain Parameters.

    Hidden axes: the last of ``tokens_in`` and first of ``tokens_out``; the last of ``features_in`` and first of
    ``features_out``. The residual joins tie tokens and features to the input.
    """

    def __init__(self, *, tokens: int = 6, features: int = 10, hidden: tuple[int, int] = (8, 16)) -> None:
        super().__init__()
        self.tokens_in = nn.Parameter(torch.randn(tokens, hidden[0]) / 3)
        self.tokens_out = nn.Parameter(torch.randn(hidden[0], tokens) / 3)
        self.features_in = nn.Parameter(torch.randn(features, hidden[1]) / 3)
        self.features_out = nn.Parameter(torch.randn(hidden[1], features) / 3)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.relu(torch.einsum("ntf,th->nhf", x, self.tokens_in))
        x = x + torch.einsum("nhf,ht->ntf", mixed, self.tokens_out)
        mixed = torch.relu(torch.matmul(x, self.features_in))
        return x + mixed @ self.features_out


class SizeArithmetic(nn.Module):
    """Reshapes by sizes read from its tensors, as in code written before ``flatten``."""

    def __init__(self, *, widths: tuple[int, int] = (8, 6), pixels: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.fc = nn.Linear(widths[1] * pixels, 12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.conv1(x))
        y = y.view(y.size(0), y.size(1), -1).view(y.size(0), -1, y.size(2), y.size(3))
        y = torch.relu(self.conv2(y))
        y = y.view(y.shape[0], y.shape[1] * y.shape[2] * y.shape[3])
        y = torch.relu(self.fc(y))
        y = self.last(y.view(x.shape[0], -1))
        return y


class WidthScaled(nn.Module):
    """Multiplies by a power of its own width, so that growth changes the factor unless it is kept fixed."""

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, width)
        self.fc2 = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.fc1(x))
        y = self.fc2(y * y.shape[1] ** -0.5)
        return y
