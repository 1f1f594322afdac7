"""Code that asks a stand-in for a size in a way that torch.fx does not notice is not decided by chance.

The example inputs decide, and the graph is guarded; where there are none, the model is refused.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(2, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCALES = {16: 0.5}
WIDE = {(2, 16, 4)}


def swallowed(x: Tensor, y: Tensor) -> Tensor:
    try:
        if x.shape[1] > 10:
            y = y * 2
    except Exception:  # as user code does
        pass
    return y


def asserted(x: Tensor, y: Tensor) -> Tensor:
    try:
        assert x.shape[1] < 10
    except Exception:
        return y * 2
    return y


def counted(x: Tensor, y: Tensor) -> Tensor:
    try:
        for _ in range(x.shape[1]):
            y = y * 1.1
    except TypeError:
        pass
    return y


def stored(x: Tensor, y: Tensor) -> Tensor:
    known = {16: 2.0}
    known[x.shape[1]] = known.get(16, 1.0)
    return y * len(known)


def matched(x: Tensor, y: Tensor) -> Tensor:
    match x.shape:
        case [_, 16, _]:
            return y * 2
    return y


def matched_sizes(x: Tensor, y: Tensor) -> Tensor:
    match x.size():
        case (_, 16, *_):
            return y * 2
    return y


def matched_class(x: Tensor, y: Tensor) -> Tensor:
    match x:
        case Tensor() if x.shape[1] > 10:
            return y * 2
    return y


@dataclass(frozen=True)
class Key:
    """What a dict may have for a key."""

    size: int


look = SCALES.get
READS: dict[str, Callable[[Any, Any], Any]] = {
    "in a set of sizes": lambda x, y: y * len({x.shape[1], x.shape[0] * 8}),
    "an intersection": lambda x, y: y * 2 if {16} & {x.shape[1]} else y,
    "disjoint": lambda x, y: y if {16}.isdisjoint([x.shape[1]]) else y * 2,
    "counts": lambda x, y: y * len(Counter([x.shape[1], 16])),
    "stored in a dict": stored,
    "a method by another name": lambda x, y: y * look(x.shape[1], 1.0),
    "a mapped method": lambda x, y: y * next(map(SCALES.get, [x.shape[1]], [1.0])),
    "an operator": lambda x, y: y * 2 if operator.contains({16}, x.shape[1]) else y,
    "any": lambda x, y: y * 2 if any(map({16}.__contains__, (x.shape[1],))) else y,
    "a key of a dataclass": lambda x, y: y * 2 if Key(x.shape[1]) in {Key(16)} else y,
    "a pattern": matched,
    "a pattern of size()": matched_sizes,
    "a pattern of a class": matched_class,
    "a tensor, and a size": lambda x, y: y * 2 if isinstance(x, Tensor) and x.shape[1] > 10 else y,
    "is_tensor, and a size": lambda x, y: y * 2 if torch.is_tensor(x) and x.shape[1] > 10 else y,
    "a tuple, and a size": lambda x, y: y * 2 if isinstance(x.shape, tuple) and x.shape[1] > 10 else y,
    "a negative int": lambda x, y: y * 2 if isinstance(-x.shape[1], int) and x.shape[1] > 10 else y,
    "a float": lambda x, y: y * 2 if isinstance(x.shape[1] / 2, float) and x.shape[1] > 10 else y,
    "in a set": lambda x, y: y * 2 if x.shape[1] in {16, 32} else y,
    "in a dict": lambda x, y: y * 2 if x.shape[1] in SCALES else y,
    "not in": lambda x, y: y if x.size(1) not in {16} else y * 2,
    "get": lambda x, y: y * SCALES.get(x.shape[1], 1.0),
    "an item": lambda x, y: y * {8: 1.0, 16: 2.0}[x.shape[1]],
    "a sum": lambda x, y: y * 2 if x.shape[1] + 1 in {17} else y,
    "a dtype": lambda x, y: y * 2 if x.dtype in {torch.float32} else y,
    "a dict of dtypes": lambda x, y: y * {torch.float32: 0.5}.get(x.dtype, 1.0),
    "a whole shape": lambda x, y: y * 2 if x.shape in WIDE else y,
    "an int": lambda x, y: y * 2 if isinstance(x.shape[1], int) and x.shape[1] > 10 else y,
    "an int of size()": lambda x, y: y * 2 if isinstance(x.size(1) // 2, int) and x.size(1) > 10 else y,
    "an error that is swallowed": swallowed,
    "an assertion": asserted,
    "a loop": counted,
}


CLASSES = {"a pattern of a class", "a tensor, and a size", "is_tensor, and a size", "a negative int", "a float"}
"""Those that ask for the class first, which is not known without an example."""
DTYPES = ("a dtype", "a dict of dtypes")


class Layers(nn.Module):
    """Two layers, and what a test does with their input and output."""

    def __init__(self, read: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.a, self.b, self.read = nn.Linear(4, 6), nn.Linear(6, 3), read

    def forward(self, x: Tensor) -> Tensor:
        """Of the function."""
        y: Tensor = self.read(x, self.b(torch.relu(self.a(x))))
        return y


def share(net: Layers, x: Tensor) -> float:
    """What the layers return, over what they return before anything is looked up."""
    return float((net(x) / net.b(torch.relu(net.a(x)))).mean().detach())


@pytest.mark.parametrize("name", READS)
def test_sizes_and_dtypes_that_are_looked_up_are_guarded(name: str) -> None:
    net = Layers(READS[name]).double()
    for _ in range(30):  # Python changes the instructions of code that runs often
        net(X)
    traced = fxgrow.trace(net, (X,))
    torch.testing.assert_close(traced(X), net(X), rtol=0, atol=0)
    other = X.float() if name in DTYPES else torch.cat([X, X], 1)
    first = share(net, X)
    if name in DTYPES:
        net, traced = net.float(), traced.float()
    second = share(net, other)
    assert abs(first - second) > 0.1, "the other input is decided otherwise"
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        traced(other)


@pytest.mark.parametrize("name", sorted(READS.keys() - CLASSES))
def test_sizes_and_dtypes_that_are_looked_up_are_refused_without_an_example(name: str) -> None:
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(Layers(READS[name]).double())


def test_a_size_is_an_int() -> None:
    def both(x: Any, y: Any) -> Any:
        size = x.shape[1]
        pair = (size, size) if isinstance(size, int) else size
        rank = x.ndim if isinstance(x.ndim, int) else 0
        return y * (pair[0] / pair[1]) * rank

    net = Layers(both).double()
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    for x in (X, X[:, :5]):
        torch.testing.assert_close(wider(x), net(x), rtol=0, atol=1e-12)


def test_classes_are_those_of_the_example() -> None:
    class Asks(Layers):
        count: Tensor

        def forward(self, x: Any) -> Any:
            total: Any = torch.zeros((), dtype=torch.float64)
            total += self.b(self.a(x)).mean()
            self.count += total.detach()
            asked: Any = (
                (x, Tensor, True),
                (x, (list, tuple, Sequence), False),
                (x.shape, torch.Size, True),
                (x.shape, Sequence, True),
                (x.size(), tuple, True),
                (x.stride(0), int, True),
                (x.dtype, torch.dtype, True),
                (x.chunk(2), tuple, True),
                (total, Tensor, True),
                (self.count, Tensor, True),
            )
            for number, (thing, kind, answer) in enumerate(asked):
                if isinstance(thing, kind) is not answer:
                    raise AssertionError(number)
            rows = [x] if torch.is_tensor(x) else x
            return self.b(torch.relu(self.a(rows[0]))), total

    net = Asks(READS["get"]).double()
    net.register_buffer("count", torch.zeros((), dtype=torch.float64))
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a", scheme="zero")
    for x in (X, X[:, :5]):
        torch.testing.assert_close(wider(x), net(x), rtol=0, atol=1e-12)


class Reversed(torch.autograd.Function):
    """torch calls it in C code, which asks for classes, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return -gradients[0]


def test_c_code_is_not_told_that_a_stand_in_is_a_tensor() -> None:
    for apply in (
        lambda x, y: Reversed.apply(y),
        lambda x, y: Reversed.apply(y if isinstance(y, Tensor) else x),
        lambda x, y: torch._C._TensorBase.relu(y),
    ):
        net = Layers(apply).double()
        try:
            wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
        except fxgrow.UsageError:
            continue
        torch.testing.assert_close(wider(X), net(X), rtol=0, atol=1e-12)


@functools.lru_cache
def ones(rows: int, count: int) -> Tensor:
    """What a function remembers."""
    return torch.ones(3, dtype=torch.float64) * count


def test_an_argument_of_a_cached_function_is_not_looked_up() -> None:
    class Counted(Layers):
        count = 2

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x)) * ones(x.ndim, self.count)
            return y

    net = Counted(READS["get"]).double()
    torch.testing.assert_close(fxgrow.trace(net, (X,))(X), net(X), rtol=0, atol=0)


def test_nodes_know_their_lines_whatever_forward_is_called() -> None:
    class Renamed(Layers):
        def _run(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x))
            return y

        forward = _run

    traced = fxgrow.trace(Renamed(READS["get"]).double(), (X,))
    assert all("in _run" in str(n.stack_trace) for n in traced.graph.nodes if n.op == "call_module")


def test_tensors_may_be_keys() -> None:
    def remembered(x: Tensor, y: Tensor) -> Tensor:
        known = {x: 1.0, y: 2.0}
        return y * known[y] if y in known else y

    net = Layers(remembered).double()
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    torch.testing.assert_close(wider(X), net(X), rtol=0, atol=1e-12)
