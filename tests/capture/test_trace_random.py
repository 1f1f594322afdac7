"""Random numbers that `forward` draws outside the graph: no trace holds one draw of them, and no stream moves on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxgrow

from ..threads import joined

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two layers in a row, and what a test does with the second one in training mode."""

    def __init__(self, body: Callable[[Layers, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.python, self.numpy = random.Random(0), np.random.default_rng(0)
        self.held: dict[str, Any] = {"legacy": np.random.RandomState(0), "torch": [torch.Generator().manual_seed(0)]}
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        z: Tensor = self.c(self.body(self, y) if self.training else y + self.b(y))
        return z


def skipped(draw: Callable[[Layers], float]) -> Callable[[Layers, Tensor], Tensor]:
    """Stochastic depth by a number that Python looks at."""
    return lambda net, y: y if draw(net) < 0.5 else y + net.b(y)


def scaled(draw: Callable[[Layers], Any]) -> Callable[[Layers, Tensor], Tensor]:
    """A number that a graph would hold."""
    return lambda net, y: y + net.b(y) * draw(net)


DRAWS: dict[str, Callable[[Layers], Any]] = {
    "Python": lambda net: random.random(),
    "NumPy": lambda net: np.random.rand(),
    "torch": lambda net: torch.rand(1).item(),
    "a generator of Python": lambda net: net.python.random(),
    "a generator of NumPy": lambda net: net.numpy.random(),
    "an old generator of NumPy": lambda net: net.held["legacy"].rand(),
    "a generator of torch": lambda net: torch.rand(1, generator=net.held["torch"][0]).item(),
}


def states(net: Layers) -> list[Any]:
    """Of all streams."""
    numpys = [np.random.mtrand._rand, net.held["legacy"]]
    return [
        random.getstate(),
        net.python.getstate(),
        torch.get_rng_state().tolist(),
        net.held["torch"][0].get_state().tolist(),
        repr(net.numpy.bit_generator.state),
        *([s.get_state()[1].tolist(), s.get_state()[2]] for s in numpys),
    ]


@pytest.mark.parametrize("use", [skipped, scaled])
@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_outside_the_graph_is_not_claimed(name: str, use: Any) -> None:
    for seed in range(2):  # whichever way the first draws go
        random.seed(seed)
        np.random.seed(seed)
        net = Layers(use(DRAWS[name])).eval()
        torch.manual_seed(seed)
        before = states(net)
        gm = fxgrow.trace(net, (X,))
        assert gm.meta["fxgrow_modes"] == ("eval",)
        wider = fxgrow.widen(gm, "b")
        assert torch.allclose(wider(X), net(X))
        with pytest.raises(fxgrow.UsageError, match="FXG009"):
            wider.train()(X)
        net.train()
        with pytest.raises(fxgrow.UsageError, match="FXG007"):
            fxgrow.trace(net, (X,))
        assert states(net) == before


def test_a_tensor_that_the_graph_draws_is_claimed() -> None:
    def dropped(net: Layers, y: Tensor) -> Tensor:
        z: Tensor = y + net.b(y) * torch.bernoulli(torch.full_like(y[:, :1], 0.5))
        return z

    net = Layers(dropped).train()
    gm = fxgrow.trace(net, (X,))
    for model in (net.train(), gm.train()):
        torch.manual_seed(1)
        found = model(X)
        torch.manual_seed(1)
        assert torch.equal(found, model(X))
    torch.manual_seed(1)
    assert torch.equal(found, net(X))


class Augmentation:
    """An object of the user's that draws."""

    rng = random.Random(3)

    def __init__(self) -> None:
        self.own = np.random.default_rng(3)


AUGMENTATION, GENERATOR, TORCHS = Augmentation(), np.random.default_rng(4), torch.Generator().manual_seed(4)
ELSEWHERE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "a global of NumPy": (lambda: GENERATOR.random(), lambda: GENERATOR.bit_generator.state),
    "a global of torch": (lambda: torch.rand(1, generator=TORCHS).item(), lambda: TORCHS.get_state().tolist()),
    "a class attribute": (lambda: Augmentation.rng.random(), lambda: Augmentation.rng.getstate()),
    "an object": (lambda: AUGMENTATION.own.random(), lambda: AUGMENTATION.own.bit_generator.state),
}
"""What draws from a generator that no module holds, and the state of that one."""


@pytest.mark.parametrize("use", [skipped, scaled])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_generators_outside_the_model_are_followed(name: str, use: Any) -> None:
    draw, state = ELSEWHERE[name]
    net, before = Layers(use(lambda _: draw())).eval(), repr(state())
    assert fxgrow.trace(net, (X,)).meta["fxgrow_modes"] == ("eval",)
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(net.train(), (X,))
    assert repr(state()) == before


@contextmanager
def another_thread_that_draws(pause: float, draw_one: Callable[[], object] = random.random) -> Iterator[None]:
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(pause):
            draw_one()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        time.sleep(0.01)
        yield
    finally:
        stop.set()
        joined(thread)


@pytest.mark.parametrize("draw_one", [random.random, np.random.random])
@pytest.mark.parametrize("pause", [0.005, 0.0005, 0.0])
def test_another_thread_that_draws_is_no_reason_to_refuse(pause: float, draw_one: Callable[[], object]) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with another_thread_that_draws(pause, draw_one):
        assert fxgrow.trace(model, (X,)).meta.get("fxgrow_modes") is None  # both modes are claimed


@pytest.mark.parametrize("use", [skipped, scaled])
@pytest.mark.parametrize("name", DRAWS)
def test_another_thread_that_draws_hides_nothing(name: str, use: Any) -> None:
    with another_thread_that_draws(0.0005), pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(Layers(use(DRAWS[name])).train(), (X,))


READS: dict[str, Callable[[], Any]] = {
    "a list of a permutation": lambda: torch.randperm(3).tolist()[0],
    "a list of uniform numbers": lambda: torch.rand(1).tolist()[0],
    "NumPy": lambda: torch.rand(3).numpy()[0],
    "a text": lambda: str(torch.rand(())),
    "an index": lambda: torch.rand(3).argmax().tolist(),
    "dropout": lambda: nn.functional.dropout(torch.ones(3), 0.5).tolist()[0],
    "a distribution": lambda: torch.distributions.Normal(0.0, 1.0).sample().tolist(),
    "nothing": lambda: torch.rand(1),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", READS)
def test_draws_of_torch_that_the_graph_does_not_make_are_not_claimed(name: str, training: bool) -> None:
    def drawn(net: Layers, y: Tensor) -> Tensor:
        return y + net.b(y) if net.training and READS[name]() else y

    net = Layers(drawn).train(training)
    if training:
        with pytest.raises(fxgrow.UsageError, match="FXG007"):
            fxgrow.trace(net, (X,))
    else:
        assert fxgrow.trace(net, (X,)).meta["fxgrow_modes"] == ("eval",)
