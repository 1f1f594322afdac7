"""Parameters in one memory, hooks on parameters: what a growth keeps of them, and when it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.capture.lowering.shared_storage import overlapping, place_of


class Tied(nn.Module):
    """The output weight is the table, by memory only."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f, self.g = nn.Embedding(9, 8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.h = nn.Linear(8, 9, bias=False)
        self.h.weight = nn.Parameter(self.e.weight.data)

    def forward(self, i: Tensor) -> Tensor:
        found: Tensor = self.h(self.e(i) + self.g(torch.relu(self.f(self.e(i)))))
        return found


WORDS = torch.tensor([[0, 5, 8], [1, 1, 7]])


def traced(model: nn.Module, *inputs: Tensor) -> Any:
    """A traced model, of which everything may be asked."""
    return fxgrow.trace(model.eval(), inputs)


def one_memory(model: Any) -> bool:
    return place_of(model.e.weight) == place_of(model.h.weight)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("node", ["f", "e"])
def test_a_tie_by_memory_stays_one(node: str, inplace: bool) -> None:
    torch.manual_seed(0)
    before = traced(Tied(), WORDS)
    want = before(WORDS).detach()
    assert one_memory(before)
    after: Any = fxgrow.widen(before, node, inplace=inplace)
    assert one_memory(after)
    assert after.e.weight is not after.h.weight
    assert torch.allclose(after(WORDS), want, atol=1e-5)
    assert (after is before) is inplace
    if not inplace:
        assert place_of(after.e.weight) != place_of(before.e.weight)
        assert one_memory(before)
    assert after.e.weight.shape == (9, 16 if node == "e" else 8)
    with torch.no_grad():
        after.e.weight.add_(1)
    assert torch.equal(after.e.weight, after.h.weight)


@pytest.mark.parametrize("growth", ["deepen", "grow"])
def test_other_growths_keep_it_too(growth: str) -> None:
    before = traced(Tied(), WORDS)
    if growth == "deepen":
        after: Any = fxgrow.deepen(before, after="f")
    else:
        after = fxgrow.grow(before, widen={"e": 2.0}, deepen="f")
    assert one_memory(after)
    assert torch.allclose(after(WORDS), before(WORDS), atol=1e-5)


def test_a_plan_belongs_to_models_with_the_same_ties() -> None:
    before = traced(Tied(), WORDS)
    plan = fxgrow.plan_widen(before, "e")
    apart: Any = copy.deepcopy(before)
    assert not one_memory(apart)
    with pytest.raises(fxgrow.UsageError, match="tied weights differ"):
        fxgrow.apply(plan, apart)


class Parts(nn.Module):
    """Two layers whose weights are parts of one memory; `shift` says how many rows they have in common."""

    def __init__(self, common: int) -> None:
        super().__init__()
        memory = torch.randn(16 - common, 5)
        self.a, self.b = nn.Linear(5, 8, bias=False), nn.Linear(5, 8, bias=False)
        self.a.weight, self.b.weight = nn.Parameter(memory[:8]), nn.Parameter(memory[8 - common :])
        self.c = nn.Linear(8, 3)
        self.d = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(torch.relu(self.a(x))) + self.d(torch.relu(self.b(x)))
        return found


def test_memory_with_a_common_part_is_refused_where_it_grows_and_kept_where_not() -> None:
    x = torch.randn(4, 5)
    before = traced(Parts(3), x)
    with pytest.raises(fxgrow.UsageError, match=r"a\.weight is to grow, but shares memory with b\.weight"):
        fxgrow.widen(before, "a")
    assert before.a.weight.shape == (8, 5)
    after: Any = fxgrow.deepen(before, after="c")
    with torch.no_grad():
        after.a.weight[7] = 2.0
    assert bool((after.b.weight[2] == 2).all())
    assert not bool((before.b.weight[2] == 2).all())


def test_neighbours_in_one_memory_grow() -> None:
    x = torch.randn(4, 5)
    before = traced(Parts(0), x)
    after: Any = fxgrow.widen(before, "a")
    assert torch.allclose(after(x), before(x), atol=1e-5)
    assert after.b.weight.untyped_storage().nbytes() == before.b.weight.numel() * 4


def test_columns_that_take_turns_are_apart() -> None:
    memory = torch.zeros(4, 6)
    a, b, c = memory[:, ::2], memory[:, 1::2], memory[1:, :]
    assert overlapping([a, b]) == []
    assert len(overlapping([a, b, c])[0]) == 3
    assert overlapping([a, a]) == []


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return found


def double(gradient: Tensor) -> Tensor:
    return 2 * gradient


def halve(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad /= 4


REGISTERED: dict[str, Callable[[nn.Parameter], Any]] = {
    "on the gradient": lambda p: p.register_hook(double),
    "behind it": lambda p: p.register_post_accumulate_grad_hook(halve),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", REGISTERED)
def test_hooks_on_parameters_that_stay_are_kept(kind: str, inplace: bool) -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    before = traced(Hooked().double(), x)
    bare = copy.deepcopy(before)
    REGISTERED[kind](before.c.bias)
    REGISTERED[kind](before.a.weight)
    after: Any = fxgrow.widen(before, "b", inplace=inplace)
    for model in (bare, after):
        model(x).square().sum().backward()
    factor = 2 if kind == "on the gradient" else 1 / 4
    assert torch.allclose(after.c.bias.grad, factor * bare.c.bias.grad)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", REGISTERED)
def test_a_hook_on_a_parameter_that_grows_is_refused_by_name(kind: str, inplace: bool) -> None:
    x = torch.randn(4, 5)
    before = traced(Hooked(), x)
    handle = REGISTERED[kind](before.b.weight)
    with pytest.raises(fxgrow.UsageError, match=r"b\.weight is to grow, but has a hook") as error:
        fxgrow.widen(before, "b", inplace=inplace)
    assert "register it again" in str(error.value)
    assert before.b.weight.shape == (8, 8)
    handle.remove()
    after: Any = fxgrow.widen(before, "b")
    assert after.b.weight.shape == (16, 8)


def test_a_frozen_parameter_keeps_its_hook_and_stays_frozen() -> None:
    x = torch.randn(4, 5)
    before = traced(Hooked(), x)
    before.c.bias.register_hook(double)
    before.c.bias.requires_grad_(False)
    after: Any = fxgrow.widen(before, "b")
    assert not after.c.bias.requires_grad
    assert len(after.c.bias._backward_hooks) == 1


def test_gradients_are_not_carried_into_a_copy() -> None:
    x = torch.randn(4, 5)
    before = traced(Hooked(), x)
    before(x).sum().backward()
    kept = before.c.bias.grad.clone()
    after: Any = fxgrow.widen(before, "b")
    assert all(p.grad is None for p in after.parameters())
    assert torch.equal(before.c.bias.grad, kept)
