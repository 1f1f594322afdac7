"""NumPy's functions of sizes are recorded as those of Python's `math` are, and its numbers as Python's."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.functional import numpy_number

np: Any = numpy  # whose numbers and torch's tensors know nothing of each other's types
EXACT = 1e-12
SCALE = np.sqrt(64)
SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": lambda h: h / np.sqrt(h.shape[-1]),
    "power": lambda h: h * np.power(float(2), -h.dim()) * np.power(h.shape[1], 0.5),
    "log": lambda h: h * np.log(h.size(1)),
    "log2 of a product": lambda h: h * np.log2(h.size(1) * h.size(2)),
    "ceil": lambda h: h * np.ceil(h.shape[1] / 3),
    "maximum": lambda h: h * np.maximum(h.shape[1], 6),
    "clip": lambda h: h * np.clip(h.shape[1], 2, 4),
    "prod of a shape": lambda h: h / np.prod(h.shape[1:]),
    "prod of a list": lambda h: h / np.prod([h.shape[1], 2, h.shape[2]]),
    "max of a shape": lambda h: h * np.max(h.shape),
    "mean of a list": lambda h: h * np.mean([h.shape[0], h.shape[1]]),
    "a view": lambda h: h.reshape(h.shape[0], np.prod(h.shape[1:])).reshape(h.shape),
    "a number on the left": lambda h: h * (np.float64(0.5) * h.shape[1]),
    "a number on the right": lambda h: h * (h.shape[1] // np.int64(2)),
    "a constant": lambda h: h / SCALE,
    "a constant on the left": lambda h: SCALE * h,
    "a constant of single precision": lambda h: np.float32(0.1) * h,
    "an index": lambda h: h + h[:, : np.int64(2)].sum(1, keepdim=True),
}
GUARDED: dict[str, Callable[[Tensor], Tensor]] = {
    "a condition": lambda h: h * 2 if np.sqrt(h.shape[1]) > 2.5 else h,
    "a whole number": lambda h: h * int(np.ceil(h.shape[1] / 5)),
}
ARRAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "an array of sizes": lambda h: h * float(np.array(h.shape)[1]),
    "a function of each size": lambda h: h * float(np.sqrt(h.shape)[1]),
}


class Between(nn.Module):
    """Something between two layers."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.way = nn.Linear(4, 8), nn.Linear(8, 2), way

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.way(self.up(x)))
        return y


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SIZES)
def test_a_function_of_sizes_follows_the_input_and_the_width_grows(name: str) -> None:
    module = Between(SIZES[name]).double().eval()
    gm = fxgrow.trace(module, (numbers(2, 5, 4),))
    wider = fxgrow.widen(gm, "up")
    for shape in ((2, 5, 4), (3, 7, 4), (1, 2, 4)):
        x = numbers(*shape)
        for training in (False, True):
            expected = module.train(training)(x)
            torch.testing.assert_close(gm.train(training)(x), expected, rtol=0, atol=0)
            torch.testing.assert_close(wider.train(training)(x), expected, rtol=EXACT, atol=EXACT)
    module.eval()
    assert fxgrow.verify(module, wider.eval()).held


@pytest.mark.parametrize("name", GUARDED)
def test_what_forward_decides_by_such_a_number_is_guarded(name: str) -> None:
    module = Between(GUARDED[name]).double().eval()
    gm = fxgrow.trace(module, (numbers(2, 5, 4),))
    wider = fxgrow.widen(gm, "up")
    for model in (gm, wider):
        for shape in ((2, 5, 4), (3, 5, 4)):
            torch.testing.assert_close(model(numbers(*shape)), module(numbers(*shape)), rtol=EXACT, atol=EXACT)
        with pytest.raises(fxgrow.UsageError, match="FXG010"):
            model(numbers(2, 9, 4))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_sizes_is_refused(name: str) -> None:
    with pytest.raises(fxgrow.UsageError, match="array of"):
        fxgrow.trace(Between(ARRAYS[name]).double().eval(), (numbers(2, 5, 4),))


class Scaled(nn.Module):
    """Attention as it is often written by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        k = self.k(x)
        scores = self.q(x) @ k.transpose(1, 2) / np.sqrt(k.shape[-1])
        y: Tensor = self.out(scores.softmax(-1) @ self.v(x))
        return y


def test_the_scale_of_attention_is_pinned_and_a_pickled_trace_keeps_the_function() -> None:
    module = Scaled().double().eval()
    gm = fxgrow.trace(module, (numbers(2, 5, 4),))
    again, given = pickle.loads(pickle.dumps(gm)), (numbers(2, 5, 4),)
    for grown in (fxgrow.widen(gm, "k", factor=2), fxgrow.widen(again, "k", factor=2, example_inputs=given)):
        for shape in ((2, 5, 4), (3, 7, 4)):
            torch.testing.assert_close(grown(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)


def test_numpy_is_as_it_was_after_a_trace() -> None:
    before = dict(vars(np))
    fxgrow.trace(Scaled(), (numbers(2, 5, 4).float(),))
    assert vars(np) == before


def test_a_number_of_numpy_is_a_plain_one() -> None:
    assert type(numpy_number("sqrt", 8)) is float
    assert numpy_number("sqrt", 8) == math.sqrt(8)
    assert type(numpy_number("prod", [2, 3])) is int
