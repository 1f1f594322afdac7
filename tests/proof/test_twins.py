"""docs/symmetry.md, sections 2 to 4: what carries over, what changes nothing, and pairs that never part, in float64."""

from __future__ import annotations

import torch
from torch import nn

from .grown_pairs import RATE, Case, Linear, close, conv, grown, linear, normal, sgd

# -- biases -----------------------------------------------------------------------------------------------------------


def test_biases_that_begin_at_zero_part_too() -> None:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = Linear(torch.tanh)
        nn.init.zeros_(model.first.bias)
    case = grown(model, normal(8, 6), normal(8, 5, seed=1))
    assert not bool(case.model.get_parameter("first.bias").any())
    case.train(sgd())
    left, right = case.parameters("first.bias")
    assert float((left - right).abs().min()) > 1e-4
    assert close(left, -right, 1.0)


def test_a_bias_before_a_batch_norm_never_parts_and_does_no_harm() -> None:
    case = conv(norm=True)
    case.train(sgd(), steps=5)
    left, right = case.parameters("first.bias")
    assert close(left, right, 1.0)
    left, right = case.parameters("first.weight")
    assert float((left - right).norm(dim=1).min()) > 1e-4


# -- where halves stay twins for ever ---------------------------------------------------------------------------------


def filled(case: Case, name: str, value: float) -> None:
    """Set both halves of a parameter to a number."""
    pairs, parameter = case.pairs[name], case.model.get_parameter(name)
    with torch.no_grad():
        for k in (*pairs.left, *pairs.right):
            parameter.select(pairs.axis, k).fill_(value)


def test_with_zero_outgoing_halves_the_producers_are_twins_for_ever() -> None:
    case = linear(torch.tanh)
    filled(case, "last.weight", 0.0)
    before, _ = case.parameters("first.weight")
    assert float(case.halves(case.gradients(), "last.weight")[0].abs().min()) > 1e-4
    case.train(sgd(momentum=0.9), steps=50)
    left, right = case.parameters("first.weight")
    assert close(left, right, 1.0)
    assert float((left - before).abs().max()) > 1e-2
    left, right = case.parameters("last.weight")
    assert close(left, right, 1.0)  # equal now, not opposite: two units that do the work of one
    assert float(left.abs().max()) > 1e-2


def test_without_a_gradient_from_above_nothing_moves() -> None:
    case = linear(torch.tanh)
    case = Case(case.model, case.x, case.model(case.x).detach())
    case.train(sgd(momentum=0.9), steps=5)
    for name, pairs in case.pairs.items():
        left, right = case.parameters(name)
        assert torch.equal(left, -right if pairs.state == "odd" else right)


def test_a_dead_relu_never_parts_and_weight_decay_shrinks_it() -> None:
    case = linear()
    filled(case, "first.bias", -100.0)
    before = {name: case.parameters(name)[0] for name in case.pairs}
    gradients = case.gradients()
    assert not any(bool(half.any()) for name in case.pairs for half in case.halves(gradients, name))
    case.train(sgd(weight_decay=0.5), steps=3)
    for name, pairs in case.pairs.items():
        left, right = case.parameters(name)
        assert torch.equal(left, -right if pairs.state == "odd" else right)
        assert close(left, (1 - RATE * 0.5) ** 3 * before[name], float(before[name].abs().max()))


def test_without_inputs_only_biases_can_part_the_producers() -> None:
    for bias in (False, True):
        case = linear(torch.tanh, bias)
        case = Case(case.model, torch.zeros_like(case.x), case.y)
        case.train(sgd(), steps=5)
        left, right = case.parameters("first.weight")
        assert torch.equal(left, right)
        consumers = case.parameters("last.weight")
        if bias:
            assert float((case.parameters("first.bias")[0] - case.parameters("first.bias")[1]).abs().min()) > 1e-3
            assert not close(consumers[0], -consumers[1], 1.0)
        else:
            assert torch.equal(consumers[0], -consumers[1])


def test_data_whose_gradients_cancel_do_not_part_the_producers_weights() -> None:
    """Why the data must not be symmetric: x and -x with one error, under a slope that is the same for both."""
    case = linear(torch.tanh, bias=False)
    x = torch.cat([case.x, -case.x])
    with torch.no_grad():
        y = case.model(x)
    case = Case(case.model, x, y - torch.cat([case.y, case.y]))  # the error, hence the gradient, is even in x
    gradients = case.gradients()
    scale = float(gradients["last.bias"].abs().max())
    assert all(close(half, half * 0, scale) for half in case.halves(gradients, "first.weight"))
    assert all(close(half, half * 0, scale) for half in case.halves(gradients, "last.weight"))
    assert scale > 0.1


# -- the rate ---------------------------------------------------------------------------------------------------------


def test_a_pair_is_two_units_turned_by_45_degrees() -> None:
    """With a linear middle the pair contributes 2 (e a + v d) x, and the loss falls at the rate of d and e alone."""
    case = linear(lambda x: x * 1.0, bias=False)
    case.train(sgd(), steps=3)
    u, w = case.parameters("first.weight"), case.parameters("last.weight")
    a, d = (u[0] + u[1]) / 2, (u[0] - u[1]) / 2
    e, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    found = w[0].T @ u[0] + w[1].T @ u[1]
    wanted = 2 * (e.T @ a + v.T @ d)
    assert float(wanted.abs().max()) > 1e-3
    assert close(found, wanted, float(wanted.abs().max()))
