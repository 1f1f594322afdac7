"""Grown models and their pairs, for the tests of docs/symmetry.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.diagnostics import Pairs, pairs_of

EXACT = 1e-13
"""Relative: sums of a few hundred terms in float64, added in another order."""
RATE = 0.1
Optimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


class Conv(nn.Module):
    """Two convolutions around what stands between them, and a classifier."""

    def __init__(self, norm: bool = False, activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.activation = activation
        self.last = nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.avg_pool2d(self.activation(self.norm(self.first(x))), 2)).mean((2, 3))
        return y


class Linear(nn.Module):
    """Two linear layers around a non-linearity."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.relu, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 4, bias=bias)
        self.activation = activation
        self.last = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.activation(self.first(x)))
        return y


@dataclass(frozen=True)
class Case:
    """A grown model, its data, and its pairs by the parameter they lie in."""

    model: fx.GraphModule
    x: Tensor
    y: Tensor

    @property
    def pairs(self) -> Mapping[str, Pairs]:
        """One for each parameter."""
        return {p.parameter: p for p in pairs_of(self.model)}

    def loss(self) -> Tensor:
        """The mean squared error."""
        return F.mse_loss(self.model(self.x), self.y)

    def gradients(self) -> dict[str, Tensor]:
        """The gradient of every parameter."""
        self.model.zero_grad()
        self.loss().backward()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in self.model.named_parameters()}

    def halves(self, tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
        """Left and right halves in one parameter, as they are (no sign changed)."""
        pairs = self.pairs[name]
        left, right = pairs.halves(tensors[name])
        return left.clone(), -right if pairs.state == "odd" else right.clone()

    def parameters(self, name: str) -> tuple[Tensor, Tensor]:
        """Left and right halves of a parameter."""
        return self.halves(dict(self.model.named_parameters()), name)

    def train(self, make: Optimizer, steps: int = 1) -> None:
        """Train on the whole of the data."""
        optimizer = make(self.model.parameters())
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()


def grown(model: nn.Module, x: Tensor, y: Tensor) -> Case:
    """Widen `first` from 4 to 8 units: two pairs."""
    made = fxgrow.widen(fxgrow.trace(model.double().train(), (x,)), "first", scheme="r2r")
    return Case(made, x, y)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conv(norm: bool = False) -> Case:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return grown(Conv(norm), normal(4, 3, 8, 8), normal(4, 5, seed=1))


def linear(activation: Callable[[Tensor], Tensor] = torch.relu, bias: bool = True) -> Case:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return grown(Linear(activation, bias), normal(8, 6), normal(8, 5, seed=1))


def close(a: Tensor, b: Tensor, scale: float) -> bool:
    """Whether two tensors agree to rounding, beside a scale."""
    return float((a - b).abs().max()) <= EXACT * scale


def sgd(*, momentum: float = 0.0, weight_decay: float = 0.0) -> Optimizer:
    return lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=momentum, weight_decay=weight_decay)
