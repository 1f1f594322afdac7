"""A graph that does not run what its module runs is refused with a line of `forward`, and with a way out that works."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers, and something behind them."""

    calls: Any

    def __init__(self, end: Callable[[Any, Tensor], Any], calls: Any = 0) -> None:
        super().__init__()
        self.a, self.b, self.end = nn.Linear(4, 6), nn.Linear(6, 2), end
        if isinstance(calls, Tensor):
            self.register_buffer("calls", calls)
        else:
            self.calls = calls

    def forward(self, x: Tensor, **more: Any) -> Any:
        y = self.b(torch.tanh(self.a(x)))
        return self.end(self, y, **more)


class Part(nn.Module):
    """The same code in a module inside the model."""

    def __init__(self, end: Callable[..., Any]) -> None:
        super().__init__()
        self.end, self.calls = end, 0

    def forward(self, y: Tensor, **more: Any) -> Any:
        return self.end(self, y, **more)


class Outer(nn.Module):
    """A model whose last part is such a module."""

    def __init__(self, end: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b, self.end = nn.Linear(4, 6), nn.Linear(6, 2), Part(end)

    def forward(self, x: Tensor, **more: Any) -> Any:
        return self.end(self.b(torch.tanh(self.a(x))), **more)


def scaled(s: Any, y: Tensor) -> Any:
    s.calls = s.calls + 1
    return y * s.calls


def counted(s: Any, y: Tensor) -> tuple[Tensor, Any]:
    s.calls = s.calls + 1
    return y, s.calls + 0


def signed(s: Any, y: Tensor) -> Tensor:
    s.calls = s.calls + 1
    return -y if s.calls == 2 else y


def line(function: Callable[..., Any], number: int) -> str:
    """A line of a function, as messages name it."""
    return f"test_refused_traces.py:{function.__code__.co_firstlineno + number}"


COUNTERS: dict[str, tuple[Callable[..., Any], str]] = {
    "multiplied": (scaled, f"{line(scaled, 2)}, in scaled"),
    "returned": (counted, f"{line(Net.forward, 2)}, in forward:  return self.end(self, y, **more)"),
    "asked": (signed, f"{line(signed, 2)}, in signed"),
}


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_is_refused_with_its_line_and_traced_as_the_message_says(name: str) -> None:
    end, place = COUNTERS[name]
    with pytest.raises(fxgrow.UsageError, match="when it is called again") as error:
        fxgrow.trace(Net(end).double(), (X,))
    assert error.value.refusal.where == place
    assert "in a buffer, self.register_buffer(name, tensor)" in error.value.refusal.hint
    assert "into a module inside the model, and name that module or its class in leaf=" in error.value.refusal.hint
    with pytest.raises(fxgrow.UsageError, match="when it is called again"):
        fxgrow.trace(Outer(end).double(), (X,))
    model = Outer(end).double().eval()
    for leaf in (Part, model.end):
        traced = fxgrow.trace(model, (X,), leaf=[leaf])
        grown = fxgrow.widen(traced, "a", by=6)
        for _ in range(2):
            setattr(model.end, "calls", 0)  # noqa: B010
            expected = [model(X) for _ in range(3)]
            for made in (traced, grown):
                setattr(made.get_submodule("end"), "calls", 0)  # noqa: B010
                torch.testing.assert_close([made(X) for _ in range(3)], expected)


@pytest.mark.parametrize("name", ["multiplied", "returned"])
def test_a_counter_in_a_buffer_is_traced(name: str) -> None:
    model = Net(COUNTERS[name][0], torch.tensor(0)).double().eval()
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a", by=6)
    results = []
    for made in (model, traced, grown):
        made.get_buffer("calls").zero_()
        results.append([made(X) for _ in range(3)])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def exactly(s: Any, y: Tensor, flag: bool) -> Tensor:
    return y * 2 if flag is True else y


def missing(s: Any, y: Tensor, options: Any) -> Tensor:
    factor = getattr(options, "factor", None)
    return y if factor is None else y * factor


OTHERS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "another operator": (exactly, {"flag": True}, f"{line(exactly, 1)}, in exactly"),
    "an error of the graph": (
        missing,
        {"options": SimpleNamespace(size=3)},
        f"getattr_1, {line(missing, 2)}",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_differences_have_a_line_and_a_way_out_that_works(name: str) -> None:
    end, more, place = OTHERS[name]
    with pytest.raises(fxgrow.UsageError, match="does not run what the module runs") as error:
        fxgrow.trace(Net(end).double(), (X,), example_kwargs=more)
    assert error.value.refusal.where.startswith(place)
    assert "a module inside the model, and name it in leaf=" in error.value.refusal.hint
    model = Outer(end).double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (X,), example_kwargs=more, leaf=Part), "a", by=6)
    torch.testing.assert_close(grown(X, **more), model(X, **more))
    other = Net(in_a_function(name)).double().eval()
    grown = fxgrow.widen(fxgrow.trace(other, (X,), example_kwargs=more, leaf=[plainly, quietly]), "a", by=6)
    torch.testing.assert_close(grown(X, **more), other(X, **more))


def plainly(y: Tensor, flag: bool) -> Tensor:
    return exactly(None, y, flag)


def quietly(y: Tensor, options: Any) -> Tensor:
    return missing(None, y, options)


def in_a_function(name: str) -> Callable[..., Any]:
    """The same code in a function of a file."""
    if name == "another operator":
        return lambda s, y, flag: plainly(y, flag)
    return lambda s, y, options: quietly(y, options)
