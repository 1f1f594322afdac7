"""docs/symmetry.md, sections 1 and 2: the gradient of a pair, and the first step, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import fxgrow
from fxgrow.diagnostics import pairs_of
from fxgrow.models_zoo import ZOO

from .grown_pairs import RATE, Case, close, conv, linear, normal, sgd

CASES: dict[str, Callable[[], Case]] = {
    "conv": conv,
    "conv, norm": lambda: conv(norm=True),
    "linear": linear,
    "linear, gelu": lambda: linear(F.gelu),
}
every_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


# -- the gradients ----------------------------------------------------------------------------------------------------


@every_case
def test_producers_halves_get_opposite_gradients_and_consumers_equal_ones(make: Callable[[], Case]) -> None:
    case = make()
    gradients = case.gradients()
    for name, pairs in case.pairs.items():
        left, right = case.halves(gradients, name)
        scale = float(gradients[name].abs().max())
        assert pairs.role == ("consumer" if name == "last.weight" else "producer")
        assert close(left, right if pairs.state == "odd" else -right, scale)
    silent = {"first.bias"} if "norm.weight" in case.pairs else set()  # batch norm takes the mean off again
    for name in case.pairs.keys() - silent:
        assert float(gradients[name].abs().max()) > 1e-6
        left, _ = case.halves(gradients, name)
        assert bool((left.abs().amax(dim=1) > 1e-6).all())


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet", "shufflenet_v2", "unet", "gated_conv", "mixer"])
def test_so_do_those_of_streams_gates_and_concatenations(name: str) -> None:
    """Every site of a model, coupled streams included: the gradient of a pair has the other parity than the pair."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        inputs = tuple(x.double() for x in ZOO[name].example_inputs())
        gm = fxgrow.trace(ZOO[name].build().double().train(), inputs)
    sites = [site.path for site in fxgrow.inspect(gm).widenable]
    for site in (sites[0], sites[len(sites) // 2], sites[-1]):
        wider = fxgrow.widen(gm, site, scheme="r2r")
        y = wider(*inputs)
        (y * normal(*y.shape)).sum().backward()
        for pairs in pairs_of(wider):
            gradient = wider.get_parameter(pairs.parameter).grad
            assert gradient is not None
            left, right = pairs.halves(gradient)  # of opposite pairs the right half has its sign changed
            assert close(left, -right, float(max(p.grad.abs().max() for p in wider.parameters() if p.grad is not None)))


# -- the first step ---------------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_step_of_sgd_moves_d_and_e_by_the_gradient_and_neither_a_nor_v(
    make: Callable[[], Case], momentum: float
) -> None:
    case = make()
    gradients = case.gradients()
    before = {name: case.parameters(name) for name in case.pairs}
    case.train(sgd(momentum=momentum))
    for name, pairs in case.pairs.items():
        left, right = case.parameters(name)
        a, d = (left + right) / 2, (left - right) / 2
        old_a, old_d = sum(before[name]) / 2, (before[name][0] - before[name][1]) / 2
        g, h = case.halves(gradients, name)
        grad_a, grad_d = (g + h) / 2, (g - h) / 2
        scale = float(left.abs().max())
        assert close(d, old_d - RATE * grad_d, scale)
        assert close(a, old_a - RATE * grad_a, scale)
        parted, stayed = (a, d - old_d) if pairs.state == "odd" else (d, a - old_a)
        assert close(stayed, torch.zeros_like(stayed), scale)
        assert close(parted, -RATE * g, scale)


def test_momentum_carries_the_first_gradient_into_the_second_step() -> None:
    case = linear()
    first = case.halves(case.gradients(), "first.weight")[0]
    plain = copy.deepcopy(case)
    plain.train(sgd())
    second = plain.halves(plain.gradients(), "first.weight")
    case.train(sgd(momentum=0.9), steps=2)
    left, right = case.parameters("first.weight")
    wanted = -RATE * (1.9 * first + (second[0] - second[1]) / 2)
    assert close((left - right) / 2, wanted, float(wanted.abs().max()))


@every_case
def test_weight_decay_shrinks_a_and_v_and_leaves_the_first_parting_as_it_is(make: Callable[[], Case]) -> None:
    case, decay = make(), 0.5
    gradients = case.gradients()
    before = {name: case.parameters(name) for name in case.pairs}
    case.train(sgd(weight_decay=decay))
    for name, pairs in case.pairs.items():
        left, right = case.parameters(name)
        shared = (left - right if pairs.state == "odd" else left + right) / 2
        parted = (left + right if pairs.state == "odd" else left - right) / 2
        scale = float(before[name][0].abs().max())
        assert close(shared, (1 - RATE * decay) * before[name][0], scale)
        assert close(parted, -RATE * case.halves(gradients, name)[0], scale)


@every_case
def test_adam_parts_every_entry_by_two_learning_rates_whatever_its_gradient(make: Callable[[], Case]) -> None:
    case, rate, eps = make(), 1e-3, 1e-8
    gradients = case.gradients()
    case.train(lambda parameters: torch.optim.Adam(parameters, lr=rate, eps=eps))
    for name, pairs in case.pairs.items():
        if name == "first.bias" and "norm.weight" in case.pairs:
            continue  # its gradient is rounding noise, which Adam blows up
        left, right = case.parameters(name)
        g = case.halves(gradients, name)[0]
        parted = left + right if pairs.state == "odd" else left - right
        assert torch.allclose(parted, -2 * rate * g / (g.abs() + eps), rtol=1e-9, atol=1e-15)
        clear = g.abs() > 1e-4
        assert bool(clear.any())
        assert torch.allclose(parted[clear].abs(), torch.tensor(2 * rate, dtype=torch.float64), rtol=2e-4)


@pytest.mark.parametrize("decay", [0.01, 1.0])
def test_l2_inside_adam_parts_only_entries_whose_gradient_beats_the_decay(decay: float) -> None:
    case, rate = linear(torch.tanh), 1e-3
    g = case.halves(case.gradients(), "first.weight")[0]
    u = case.parameters("first.weight")[0]
    case.train(lambda parameters: torch.optim.Adam(parameters, lr=rate, weight_decay=decay))
    left, right = case.parameters("first.weight")
    wins = g.abs() > decay * u.abs()
    assert bool(wins.any())
    assert bool((~wins).any()) or decay < 0.1
    parted = (left - right).abs()
    assert bool((parted[wins] > 1.9 * rate).all())
    assert bool((parted[~wins] < 0.1 * rate).all())


def test_decoupled_decay_leaves_adams_first_parting_as_it_is() -> None:
    case, rate = linear(torch.tanh), 1e-3
    case.train(lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=1.0))
    left, right = case.parameters("first.weight")
    assert torch.allclose((left - right).abs(), torch.tensor(2 * rate, dtype=torch.float64), rtol=1e-3)


def test_adams_averages_extended_by_zeros_make_the_first_step_longer() -> None:
    case, rate = linear(torch.tanh), 1e-3
    parameter = case.model.get_parameter("first.weight")
    optimizer = torch.optim.Adam(case.model.parameters(), lr=rate)
    zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
    optimizer.state[parameter] = {"step": torch.tensor(1e5), **zeros}
    case.loss().backward()
    optimizer.step()
    left, right = case.parameters("first.weight")
    wanted = torch.tensor(2 * rate * (1 - 0.9) / (1 - 0.999) ** 0.5, dtype=torch.float64)
    assert torch.allclose((left - right).abs(), wanted, rtol=1e-2)
