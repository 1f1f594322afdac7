"""Models in which a layer is refused for a reason that no model of the zoo shows, or shows in this way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxgrow.models_zoo import ZOO


class TwoConvs(nn.Module):
    """conv1 (3 -> 8) and conv2 (8 -> 4), for what can go wrong between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 1)


class LastChannel(nn.Module):
    """Refuses ``conv1``: its last channel is picked as the last, and another one is that after a growth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x))[:, [-1, 0, 1]])
        return y


class KeptState(TwoConvs):
    """Refuses ``conv1``: an expanded tensor that lasts from call to call, part of which is written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        last = self.gain.expand(-1)[-4:]
        last.mul_(2.0)
        y: Tensor = self.conv2(self.conv1(x) * self.gain.view(-1, 1, 1))
        return y


class Squeezed(nn.Module):
    """Refuses ``conv1``: its one channel is squeezed away, which two would not be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 1, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(F.relu(self.conv1(x).squeeze(1)))
        return y


class Widths(nn.Module):
    """Keeps a number of channels where no tensor tells of it; a leaf for fx, because it looks at `training`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y = x.view(x.shape[0], self.channels, -1)
        return F.dropout(y, 0.5) if self.training else y


class KeptWidth(nn.Module):
    """Refuses ``conv1``: a module of the user's holds its width as a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.keep = Widths(8)
        self.conv2 = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.keep(self.conv1(x))))
        return y


class DecidedByWidth(nn.Module):
    """Refuses ``conv1``: what runs depends on its width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        if y.shape[1] < 10:
            y = y * 2
        z: Tensor = self.conv2(y)
        return z


class AssertedWidth(nn.Module):
    """Refuses ``conv1`` at twice its width, which it says is too much."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        assert y.shape[1] <= 12, "too wide"
        z: Tensor = self.conv2(y)
        return z


class Join(nn.Module):
    """A residual join inside a leaf."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + (F.dropout(y, 0.5) if self.training else y)


class InnerJoin(nn.Module):
    """Refuses ``conv2`` alone: a module that fx does not open joins it with ``conv1``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.join = Join()
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        z: Tensor = self.head(F.relu(self.join(y, self.conv2(F.relu(y)))))
        return z


class Plain(TwoConvs):
    """Refuses nothing, but a scheme that fills both convolutions with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        return y


def prepared(model: str | type[nn.Module]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model and inputs of it, in float64."""
    torch.manual_seed(0)
    if isinstance(model, str):
        made, inputs = ZOO[model].build(), ZOO[model].example_inputs()
    else:
        made, inputs = model(), (torch.randn(5, 3, 8, 8),)
    return made.double().eval(), tuple(x.double() if x.is_floating_point() else x for x in inputs)
