"""Tensors that `forward` makes of numbers alone: new ones in each call, also of the traced and of the grown model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.capture.recording.constants import Constants

X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Body = Callable[["Layers", Tensor], tuple[Tensor, Tensor]]


class Layers(nn.Module):
    """Two layers, and what a test does with them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the body."""
        return self.body(self, x)


def core(net: Layers, x: Tensor) -> Tensor:
    y: Tensor = net.b(torch.relu(net.a(x)))
    return y


def summed(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    loss = torch.zeros((), dtype=torch.float64)
    for layer in (net.a, net.b):
        x = layer(x)
        loss += x[:, :3].mean()
    return x, loss


def summed_by_a_method(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    y, total = core(net, x), torch.zeros(4, 3, dtype=torch.float64)
    total.add_(y)
    total.mul_(y)
    return y, total


def filled(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    y, out = core(net, x), torch.empty(3, dtype=torch.float64)
    out.copy_(y.mean(0))
    return y, out


def returned(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    return core(net, x), torch.zeros(2, dtype=torch.float64)


def viewed(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    return core(net, x), torch.arange(6, dtype=torch.float64).view(2, 3)[:, 1:]


BODIES = [summed, summed_by_a_method, filled, returned, viewed]


@pytest.mark.parametrize("body", BODIES)
def test_each_call_makes_them_anew(body: Body) -> None:
    net = Layers(body).double().eval()
    traced = fxgrow.trace(net, (X,))
    for model in (traced, fxgrow.widen(traced, "a") if body is not summed else traced):
        for _ in range(3):
            for ours, theirs in zip(net(X), model(X), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        kept = model(X)
        first = [t.detach().clone() for t in kept]
        with torch.no_grad():
            for t in model(X):
                t.add_(5)
        model(X + 1)
        for t, known in zip(kept, first, strict=True):  # a later call writes to no earlier result
            assert torch.equal(t, known)
        sum(t.sum() for t in model(X) if t.requires_grad).backward()
        copy.deepcopy(model)


def test_constants_that_are_only_read_are_kept() -> None:
    def scaled(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
        y = core(net, x)
        return y, y * torch.arange(3, dtype=torch.float64)

    traced = fxgrow.trace(Layers(scaled).double(), (X,))
    assert not [node for node in traced.graph.nodes if node.target == "clone"]


class Mixed(Layers):
    """A sum in place of another dtype."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """In float32."""
        y = core(self, x).float()
        y += x[:, :3]
        return y


def test_a_sum_in_place_keeps_the_dtype() -> None:
    net = Mixed(returned).double().eval()
    traced = fxgrow.trace(net, (X,))
    for model in (net, traced, fxgrow.widen(traced, "a")):
        assert model(X).dtype is torch.float32


def triangle(net: Layers, x: Tensor) -> Tensor:
    mask = torch.empty(4, 4, dtype=torch.float64)
    mask.fill_(2.0)
    mask.triu_(1)
    return torch.softmax(mask, -1) @ x


def through_a_view(net: Layers, x: Tensor) -> Tensor:
    table = torch.zeros(4, 5, dtype=torch.float64)
    part = table[1:3]
    part[:, ::2] += 3.0
    part.mul_(2.0)
    table[0] = part[1] - 1
    return x * table + part.sum()


def copied(net: Layers, x: Tensor) -> Tensor:
    table = torch.zeros(5, dtype=torch.float64)
    table.copy_(torch.arange(5))
    table.index_fill_(0, torch.tensor([2]), -1.0)
    return x * table


def then_computed(net: Layers, x: Tensor) -> Tensor:
    table = torch.ones(5, dtype=torch.float64)
    table[2] = 4.0
    table += x[0]
    return x * table


def read_before_it_is_written(net: Layers, x: Tensor) -> Tensor:
    table = torch.ones(5, dtype=torch.float64)
    y = x * table
    table[2] = 4.0
    return y * table


def with_a_computed_row(net: Layers, x: Tensor) -> Tensor:
    table = torch.zeros(2, 5, dtype=torch.float64)
    table[0, 3:] = 1.0
    table[1] = x.sum(0)
    return x * table[1] + table[0]


def put_together(net: Layers, x: Tensor) -> Tensor:
    both = torch.empty(4, 10, dtype=torch.float64)
    both[:, :5] = torch.relu(x)
    both[:, 5:] = -x
    return both[:, 1:6]


def row_by_row(net: Layers, x: Tensor) -> Tensor:
    rows = torch.empty(3, 5, dtype=torch.float64)
    for k in range(3):
        rows[k] = float(k)
    return x * rows.sum(0)


def seen_as_another_dtype(net: Layers, x: Tensor) -> Tensor:
    table = torch.ones(5, dtype=torch.float64)
    bits = table.view(torch.int64)
    table[1] = 2.0
    bits[0] = 0
    return x * table + bits[1:2].to(torch.float64).log()


BUILT = [
    triangle,
    through_a_view,
    copied,
    then_computed,
    read_before_it_is_written,
    with_a_computed_row,
    put_together,
    row_by_row,
    seen_as_another_dtype,
]


@pytest.mark.parametrize("built", BUILT)
def test_constants_that_are_written_step_by_step_are_followed(built: Callable[[Layers, Tensor], Tensor]) -> None:
    net = Layers(lambda net, x: (core(net, built(net, x)), x)).double().eval()
    traced = fxgrow.trace(net, (X,))
    for model in (traced, fxgrow.widen(traced, "a")):
        for _ in range(2):
            torch.testing.assert_close(model(X)[0], net(X)[0], rtol=0, atol=1e-12)


def test_many_writes_to_one_tensor_keep_one_copy_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def staircase(net: Layers, x: Tensor) -> Tensor:
        mask = torch.zeros(64, 64, dtype=torch.float64)
        for k in range(64):
            mask[k, :k] = 1.0
        return x * mask[:5, :5].sum(0)

    kept: list[int] = []
    look = Constants.made

    def counted(self: Constants, *args: Any) -> Any:
        kept.append(sum(value.numel() for value in self.values.values()))
        return look(self, *args)

    monkeypatch.setattr(Constants, "made", counted)
    fxgrow.trace(Layers(lambda net, x: (core(net, staircase(net, x)), x)).double().eval(), (X,))
    assert max(kept) < 5 * 64 * 64


KEPT = torch.zeros(5, dtype=torch.float64)


def into_a_row_of_a_global(net: Layers, x: Tensor) -> Tensor:
    KEPT[1] += 1.0
    return x * KEPT


def into_a_global(net: Layers, x: Tensor) -> Tensor:
    KEPT.add_(1.0)
    return x * KEPT


def set_in_a_global(net: Layers, x: Tensor) -> Tensor:
    KEPT[2] = 3.0
    return x * KEPT


@pytest.mark.parametrize("body", [into_a_row_of_a_global, into_a_global, set_in_a_global])
def test_tensors_that_outlive_the_call_are_no_constants_of_it(body: Callable[[Layers, Tensor], Tensor]) -> None:
    net = Layers(lambda net, x: (core(net, body(net, x)), x)).double().eval()
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(net, (X,))
    assert not KEPT.any()
