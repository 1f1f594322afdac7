"""Odd user code: objects that cannot be copied, memory that is looked at, defaults that are written to."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Locked:
    """It cannot be deep-copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.y: Any = None


class Slotted:
    """Without a dict."""

    __slots__ = ("y",)

    def __init__(self) -> None:
        self.y: Any = None


class Called:
    """It can be called."""

    def __init__(self) -> None:
        self.y: Any = None

    def __call__(self) -> None:
        """Nothing."""


class Writes(nn.Module):
    """It leaves its output on an object that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, given: Any) -> Tensor:
        """Two layers."""
        y: Tensor = self.b(torch.relu(self.a(x)))
        given.y = y
        return y


@pytest.mark.parametrize("kind", [Locked, Slotted, Called])
def test_objects_among_the_inputs_stay_what_they_are(kind: Callable[[], Any]) -> None:
    net, given = Writes().double(), kind()
    try:
        traced = fxgrow.trace(net, (X, given))
    except fxgrow.UsageError:
        traced = None
    assert given.y is None
    if traced is not None:
        ours, theirs = kind(), kind()
        net(X, ours), traced(X, theirs)
        assert torch.equal(ours.y, theirs.y)


class Body(nn.Module):
    """Two layers behind what a test does."""

    def __init__(self, body: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.body = nn.Linear(4, 6), nn.Linear(6, 3), body
        self.register_buffer("ready", torch.tensor(True))

    def forward(self, x: Tensor) -> Any:
        """Of the body."""
        return self.b(torch.relu(self.a(self.body(self, x))))


LOG, VIEWS = bytearray(b"ab"), list[memoryview]()


def looked_at(net: Any, x: Tensor) -> Tensor:
    if len(LOG) < 4:
        LOG.extend(b"cd")
        VIEWS.append(memoryview(LOG))
    return x


def test_memory_that_is_looked_at_is_no_reason_to_fail() -> None:
    net = Body(looked_at).double()
    assert torch.equal(fxgrow.trace(net, (X,))(X), net(X))
    del VIEWS[:]


class Watched(np.ndarray):
    """An array that counts the writes into it."""

    writes = 0

    def __setitem__(self, place: Any, value: Any) -> None:
        type(self).writes += 1
        super().__setitem__(place, value)


TABLE = np.zeros(3).view(Watched)


def test_arrays_that_nobody_writes_to_are_not_written_to() -> None:
    net = Body(lambda net, x: x * float(TABLE.sum() + 1)).double()
    fxgrow.trace(net, (X,))
    assert Watched.writes == 0


def swallowing(net: Any, x: Tensor) -> Tensor:
    try:
        y = x + 1 if net.ready else x
    except Exception:
        y = x * 2
    return y


def test_a_condition_on_a_buffer_is_fixed_though_forward_handles_errors() -> None:
    net = Body(swallowing).double()
    traced = fxgrow.trace(net, (X,))
    assert torch.equal(traced(X), net(X))
    assert traced.meta["fxgrow_fixed"] == ("ready",)


READ: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a number": lambda net, x: x * float(net.ready),
    "a condition": lambda net, x: x + 1 if net.ready else x,
    "an array": lambda net, x: x * float(net.ready.numpy().sum()),
}


@pytest.mark.parametrize("name", READ)
def test_other_values_of_a_buffer_that_is_read_as_a_number_raise(name: str) -> None:
    net = Body(READ[name]).double()
    traced = fxgrow.trace(net, (X,))
    grown = fxgrow.widen(traced, "a")
    assert fxgrow.verify(net, grown).ok
    expected = net(X)
    for model in (traced, grown, pickle.loads(pickle.dumps(grown)), copy.deepcopy(grown)):
        torch.testing.assert_close(model(X), expected, rtol=0, atol=1e-12)
        model.load_state_dict({**model.state_dict(), "ready": torch.tensor(False)})
        with pytest.raises(fxgrow.UsageError, match=r"FXG009.*the buffer ready"):
            model(X)


@pytest.mark.parametrize("name", READ)
def test_compiled_code_raises_too(name: str) -> None:
    net = Body(READ[name]).double()
    traced, expected = fxgrow.trace(net, (X,)), net(X)
    for model in (fxgrow.widen(traced, "a"), traced):
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(compiled(X), expected, rtol=0, atol=1e-12)
        model.load_state_dict({**model.state_dict(), "ready": torch.tensor(False)})
        with pytest.raises(RuntimeError, match="the buffer ready had when it was traced"):
            compiled(X)


class Remembers(nn.Module):
    """A default that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, cache: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006  # as user code has it
        """Two layers."""
        cache["h"] = self.a(x)
        y: Tensor = self.b(torch.relu(cache["h"]))
        return y


def test_a_default_that_is_written_to_stands_for_both_modes_and_holds_no_stand_in() -> None:
    net = Remembers().double()
    traced = fxgrow.trace(net, (X,))
    assert "fxgrow_modes" not in traced.meta
    assert torch.equal(traced(X), net(X))
    (default,) = Remembers.forward.__defaults__ or ()
    assert all(type(value) is Tensor for value in default.values())


def test_an_input_that_contains_itself_is_refused() -> None:
    given: dict[str, Any] = {"x": X}
    given["self"] = given
    with pytest.raises(fxgrow.UsageError, match="contains itself"):
        fxgrow.trace(Writes().double(), (X, given))
