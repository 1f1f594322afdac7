"""Dtypes of buffers: a cast of the traced or grown model reaches what `forward` computes from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two layers, a buffer, and what a test does with it and the input."""

    mean: Tensor

    def __init__(self, read: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.read = nn.Linear(4, 6), nn.Linear(6, 3), read
        self.register_buffer("mean", torch.linspace(-1.0, 1.0, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Of the function."""
        y: Tensor = self.b(torch.relu(self.a(self.read(self, x))))
        return y


READS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "to": lambda net, x: x.to(net.mean.dtype) - net.mean,
    "type": lambda net, x: x.type(net.mean.dtype) - net.mean,
    "of a result": lambda net, x: x.to((net.mean * 2).dtype) - net.mean,
}


@pytest.mark.parametrize("name", READS)
def test_a_cast_reaches_what_is_computed_from_the_dtype_of_a_buffer(name: str) -> None:
    net, single = Layers(READS[name]).double(), Layers(READS[name])
    wanted = net(X)
    traced = fxgrow.trace(net, (X,))
    for model in (fxgrow.widen(traced, "a"), traced):
        torch.testing.assert_close(model(X), wanted, rtol=0, atol=1e-12)
        model.float()
        torch.testing.assert_close(model(X.float()), single(X.float()), rtol=0, atol=1e-5)


def in_a_condition(net: Any, x: Tensor) -> Tensor:
    y: Tensor = x - net.mean if net.mean.dtype == torch.float64 else x
    return y


def of_a_constant(net: Any, x: Tensor) -> Tensor:
    y: Tensor = x - net.mean + torch.ones(4, dtype=net.mean.dtype)
    return y


def by_identity(net: Any, x: Tensor) -> Tensor:
    y: Tensor = x - net.mean if net.mean.dtype is torch.float64 else x
    return y


def by_its_class(net: Any, x: Tensor) -> Tensor:
    y: Tensor = x - net.mean if isinstance(net.mean.dtype, torch.dtype) else x
    return y


@pytest.mark.parametrize("read", [in_a_condition, of_a_constant, by_identity, by_its_class])
def test_code_that_must_know_the_dtype_is_traced_with_the_one_of_now(read: Callable[[Any, Tensor], Tensor]) -> None:
    net = Layers(read).double()
    traced = fxgrow.trace(net, (X,))
    with torch.no_grad():
        net.mean.mul_(2)  # the values still follow
    for model in (traced, fxgrow.widen(traced, "a")):
        torch.testing.assert_close(model(X), net(X), rtol=0, atol=1e-12)
