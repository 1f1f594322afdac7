"""Networks in which one weight is used in several places, or is not owned by a layer module."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoopedConv(nn.Module):
    """Applies one convolution repeatedly, so that its input and output channels are the same axis."""

    def __init__(self, *, width: int = 12, steps: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.loop = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        for _ in range(self.steps):
            y = F.relu(self.loop(y))
        y = self.head(y)
        return y


class SharedLinear(nn.Module):
    """Uses one square linear layer in two places, with another layer between, so that all hidden axes are the same."""

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(10, width)
        self.shared = nn.Linear(width, width)
        self.between = nn.Linear(width, width)
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.shared(self.first(x)))
        y = torch.relu(self.shared(self.between(y)))
        y = self.last(y)
        return y


class TiedLinears(nn.Module):
    """Applies two linear layers, ``fc1`` and ``fc2``, that share one weight Parameter and have separate biases."""

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(10, width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.fc2.weight = self.fc1.weight
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.tanh(self.first(x))
        y = torch.tanh(self.fc1(y))
        y = torch.tanh(self.fc2(y))
        y = self.last(y)
        return y


class TiedAutoencoder(nn.Module):
    """Decodes with the transpose of the encoder's weight, so that the code's producer and consumer are one
    Parameter."""

    def __init__(self, *, in_features: int = 20, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Linear(in_features, code)
        self.decoder_bias = nn.Parameter(torch.zeros(in_features))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.encoder(x))
        return F.linear(code, self.encoder.weight.t(), self.decoder_bias)


class FunctionalConv(nn.Module):
    """Applies functional convolutions to its own Parameters, so that no layer module owns the channels."""

    def __init__(self, *, width: int = 12) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(width, 3, 3, 3) / 5)
        self.bias1 = nn.Parameter(torch.randn(width) / 5)
        self.scale = nn.Parameter(torch.rand(1, width, 1, 1) + 0.5)
        self.weight2 = nn.Parameter(torch.randn(6, width, 3, 3) / 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(F.conv2d(x, self.weight1, self.bias1, padding=1))
        return F.conv2d(y * self.scale, self.weight2, stride=2)
