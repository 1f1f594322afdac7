"""What surrounds a call does not show in its result: default devices and dtypes, inference mode, autocast."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxgrow
from fxgrow.global_state import surroundings
from fxgrow.schemes import Net2Net

from ..threads import joined


class Net(nn.Module):
    """Convolutions with a skip path, then tokens with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.before, self.mix = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        x = self.up(x.flatten(2).transpose(1, 2))
        b, t, _ = x.shape
        q, k, v = self.mix(self.before(x)).reshape(b, t, 3, 2, -1).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1)
        found: Tensor = self.head(x.mean(1))
        return found


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Grow = Callable[[fx.GraphModule], fx.GraphModule]
GROWTHS: dict[str, Grow] = {
    "halves": lambda m: fxgrow.widen(m, "conv1"),
    "copies with noise": lambda m: fxgrow.widen(m, "conv1", scheme=Net2Net(noise=0.1)),
    "copies": lambda m: fxgrow.widen(m, "up", scheme="net2net"),
    "an adapter": lambda m: fxgrow.widen(m, "conv2", skip="reshape", adapter="conv"),
    "xavier": lambda m: fxgrow.widen(m, "conv1", init="xavier"),
    "a block": lambda m: fxgrow.deepen(m, "conv1", norm="batch"),
    "a transformer": lambda m: fxgrow.deepen(m, "up", init="kaiming"),
    "an identity": lambda m: fxgrow.deepen(m, "conv1", scheme="net2net", activation="none"),
    "a factor": lambda m: fxgrow.deepen(m, "conv2", scheme="morphism", kernel=5),
    "a function": lambda m: fxgrow.deepen(m, "up", block=lambda n: nn.Sequential(nn.Linear(n, n), nn.Linear(n, n))),
    "both": lambda m: fxgrow.grow(m, widen={"conv1": 1.5}, deepen="up"),
    "a plan from text": lambda m: fxgrow.apply(fxgrow.Plan.from_json(fxgrow.plan_widen(m, "mix").to_json()), m),
    "in place, verified": lambda m: fxgrow.widen(m, "conv1", inplace=True, verify=True),
}


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def everything() -> Iterator[None]:
    with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu"), default_dtype(torch.float64):
        yield


AROUND: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "meta": lambda: torch.device("meta"),
    "a GPU": lambda: torch.device("cuda"),
    "set to meta": lambda: default_device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu"),
    "deterministic": deterministic,
    "everything": everything,
}


def model() -> Any:
    torch.manual_seed(0)
    return fxgrow.trace(Net().eval(), (X,))


def state() -> tuple[object, ...]:
    """What a call might leave behind."""
    return (
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        len(torch.overrides._get_current_function_mode_stack()),
    )


@pytest.mark.parametrize("growth", GROWTHS)
def test_a_growth_is_the_same_bit_for_bit_and_ready_to_train(growth: str) -> None:
    want = GROWTHS[growth](model()).state_dict()
    for name, around in AROUND.items():
        before = model()
        before.stem.weight.requires_grad_(False)
        plain = state()
        with around():
            inside = state() if name != "a GPU" else ()
            grown = GROWTHS[growth](before)
            assert inside in (state() if inside else (), ())
        assert state() == plain
        have = grown.state_dict()
        assert list(have) == list(want)
        for key, tensor in have.items():
            assert tensor.dtype == want[key].dtype, (name, key)
            assert torch.equal(tensor, want[key]), (name, key)
        assert not any(t.is_inference() for t in (*grown.parameters(), *grown.buffers())), name
        assert [k for k, p in grown.named_parameters() if not p.requires_grad] == ["stem.weight"], name
        grown(X).square().sum().backward()
        assert all(p.grad is not None for p in grown.parameters() if p.requires_grad), name


@pytest.mark.parametrize("name", AROUND)
def test_what_is_said_is_the_same(name: str) -> None:
    plan = fxgrow.plan_widen(model(), "conv1").to_json()
    table = str(fxgrow.inspect(model()))
    before = model()
    with AROUND[name]():
        assert fxgrow.plan_widen(before, "conv1").to_json() == plan
        assert str(fxgrow.inspect(before)) == table
        analysis = fxgrow.analyse(before)
        certificate = fxgrow.verify(before, fxgrow.widen(before, "conv1"))
    assert len(analysis.program.ops) == len(fxgrow.analyse(model()).program.ops)
    assert certificate.held


@pytest.mark.parametrize("name", [name for name in AROUND if name != "a GPU"])
def test_a_refusal_leaves_the_surroundings_as_they_were(name: str) -> None:
    before = model()
    with AROUND[name]():
        inside = state()
        with pytest.raises(fxgrow.FxgrowError):
            fxgrow.widen(before, "head")
        with pytest.raises(fxgrow.FxgrowError):
            fxgrow.deepen(before, "nowhere")
        assert state() == inside


def test_other_threads_keep_their_surroundings() -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[tuple[object, ...]] = []

    def other() -> None:
        with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
            inside.wait(10)
            seen.append(state())
            done.set()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
        mine = state()
        with surroundings():
            inside.set()
            assert done.wait(10)
            assert torch.zeros(1).device.type == "cpu"
        assert state() == mine
    joined(thread)
    assert seen == [mine]


def test_without_them_a_default_device_shows() -> None:
    """The oracle must be able to fail."""
    with torch.device("meta"):
        assert torch.zeros(1).is_meta
        with surroundings():
            assert not torch.zeros(1).is_meta
        assert torch.zeros(1).is_meta
