"""The first experiments of the literature on function-preserving growth, in small, as tests (arXiv 2410.11038)."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow

from .by_hand import SAME, effect

WIDE = 48
"""Units of the networks that learn."""
MATCHED = 0.2
"""How far the loss may rise in the first steps after a growth with matched scales, against a growth with He scales.
Measured: a twentieth (0.04 against 0.94, the loss being 0.013 before); against new weights ten times as large, a
seventeenth."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(make: type[nn.Module]) -> nn.Module:
    """A module in float64, always the same."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        return make().double()


class Plain(nn.Module):
    """Linear layers, one behind the other, without anything between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Their product."""
        y: Tensor = self.c(self.b(self.a(x)))
        return y


class Residual(nn.Module):
    """Two residual blocks between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
        self.a1, self.a2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.b1, self.b2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = F.relu(self.stem(x))
        x = F.relu(x + self.a2(F.relu(self.a1(x))))
        x = F.relu(x + self.b2(F.relu(self.b1(x))))
        y: Tensor = self.head(x.mean((2, 3)))
        return y


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero", "morphism"])
def test_a_plain_linear_network_computes_the_same_after_each_growth(scheme: str) -> None:
    x = drawn(5, 6)
    model = start = fxgrow.trace(seeded(Plain), (x,))
    for layer, width in (("a", 12), ("b", 11), ("a", 16)):
        model = fxgrow.widen(model, layer, to=width, scheme=scheme)
    model = fxgrow.deepen(model, after="b", block="mlp", activation="none", norm="none")
    found = effect(start, model, (x,))
    assert isinstance(found, float)
    assert found < SAME


@pytest.mark.parametrize("skip", ["couple", "reshape"])
def test_a_network_with_residual_connections_computes_the_same_after_each_growth(skip: str) -> None:
    x = drawn(2, 3, 6, 6)
    model = start = fxgrow.trace(seeded(Residual), (x,))
    for layer, width in (("stem", 10), ("a1", 9), ("b2", 12), ("stem", 14)):
        model = fxgrow.widen(model, layer, to=width, scheme="r2r", skip=skip)  # type: ignore[arg-type]  # one of two
    model = fxgrow.deepen(model, after="b2")
    found = effect(start, model, (x,))
    assert isinstance(found, float)
    assert found < SAME


class Learner(nn.Module):
    """A perceptron that has something to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One number."""
        y: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
        return y


def losses(model: fx.GraphModule, steps: int) -> list[float]:
    """The loss at each step of Adam, on a smooth function of the inputs."""
    model = copy.deepcopy(model).train()
    x = drawn(256, 6, seed=1)
    wanted = (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3].sin()
    optimizer, found = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def trained() -> fx.GraphModule:
    """A learner after some training, its weights small, as those of regularised networks are."""
    model = fxgrow.trace(seeded(Learner), (drawn(4, 6),))
    x = drawn(256, 6, seed=1)
    wanted = (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3].sin()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-2)
    for _ in range(250):
        optimizer.zero_grad()
        (model(x) - wanted).square().mean().backward()
        optimizer.step()
    return model


def test_training_is_stabler_after_growth_with_matched_scales_than_with_he_scales() -> None:
    teacher = trained()
    before = losses(teacher, 1)[0]
    worst = {}
    for init in ("match", "kaiming"):
        grown = fxgrow.widen(fxgrow.widen(teacher, "a", factor=2.0, init=init), "b", factor=2.0, init=init)
        found = losses(grown, 12)
        assert found[0] == pytest.approx(before, rel=1e-9)  # the function is the same, whatever the scale
        worst[init] = max(found) - before
    assert worst["match"] < MATCHED * worst["kaiming"]


def test_training_after_growth_is_the_less_stable_the_larger_new_weights_are() -> None:
    teacher = trained()
    before, old = losses(teacher, 1)[0], teacher.get_parameter("a.weight").shape[0]
    rise = {}
    for scale in (0.1, 1.0, 10.0, 30.0):
        grown = fxgrow.widen(teacher, "a", factor=2.0, init="match")
        with torch.no_grad():
            for new in (grown.get_parameter(name)[old:] for name in ("a.weight", "a.bias")):
                new.mul_(scale)
            grown.get_parameter("b.weight")[:, old:].mul_(scale)
        found = losses(grown, 30)
        assert found[0] == pytest.approx(before, rel=1e-9)  # pairs cancel at any scale
        rise[scale] = max(found) - before
    assert rise[0.1] < rise[1.0] < rise[10.0] < rise[30.0]
    assert rise[1.0] < MATCHED * rise[10.0]


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_function_stays_over_initialisation_scales(scale: float) -> None:
    x = drawn(2, 3, 6, 6)
    model = seeded(Residual)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    start = fxgrow.trace(model, (x,))
    found = effect(start, fxgrow.widen(start, "stem", factor=2.0, init="match"), (x,))
    assert isinstance(found, float)
    assert found < SAME
