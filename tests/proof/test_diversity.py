"""Diagnostics of filters and gradients: how diverse they are, and where it goes."""

from __future__ import annotations

import copy
from math import isnan, sqrt

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.diagnostics import diversity, effective_rank, filters, gradient_norms, similarity
from fxgrow.models_zoo import ZOO

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def resnet(name: str = "resnet") -> fx.GraphModule:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return fxgrow.trace(ZOO[name].build().train(), ZOO[name].example_inputs())


@pytest.fixture(scope="module")
def wider() -> fx.GraphModule:
    """layer2.conv1, 32 -> 40 channels: four pairs."""
    return fxgrow.widen(resnet(), "layer2.conv1", by=8)


def trained(gm: fx.GraphModule, steps: int = 1) -> fx.GraphModule:
    """Take steps down the sum of squares."""
    optimizer = torch.optim.SGD(gm.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        gm(X).square().sum().backward()
        optimizer.step()
    return gm


# -- diversity --------------------------------------------------------------------------------------------------------


def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 7)) == pytest.approx(1)
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3 ** (3 / 4))
    assert isnan(effective_rank(torch.zeros(3, 3)))
    assert isnan(effective_rank(torch.ones(0, 3)))


def test_similarity_is_the_cosine() -> None:
    found = similarity(torch.tensor([[1.0, 0.0], [3.0, 3.0], [-2.0, 0.0], [0.0, 0.0]]))
    assert torch.allclose(found[0], torch.tensor([1.0, sqrt(0.5), -1.0, 0.0]))


def test_filters_of_a_weight() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, -1.0]]).reshape(4, 2, 1, 1)
    found = filters(weight, new=[2, 3], name="w")
    assert (found.old, found.new) == (2, 2)
    assert found.old_old == pytest.approx(0)
    assert found.new_new == pytest.approx(1)
    assert found.old_new == pytest.approx(sqrt(0.5))
    assert found.nearest_old == pytest.approx(sqrt(0.5))
    assert found.nearest_new == pytest.approx(1)
    assert found.rank_new == pytest.approx(1)
    assert 1 < found.rank <= 2
    text = str(found).splitlines()
    assert text[1].split()[:3] == ["w", "2", "2"]
    assert filters(weight.movedim(0, 1), new=[2, 3], axis=1, name="w") == found


def test_filters_without_new_ones() -> None:
    found = filters(torch.eye(3))
    assert found.rank == found.rank_old == pytest.approx(3)
    assert isnan(found.new_new)
    assert str(found).splitlines()[1].split().count("-") == 4


def test_new_filters_are_duplicates_at_the_growth_and_not_after_training(wider: fx.GraphModule) -> None:
    at_growth = diversity(wider)
    assert [f.parameter for f in at_growth.weights] == ["layer2.conv1.weight"]
    weight = at_growth.of("layer2.conv1.weight")
    assert (weight.old, weight.new) == (32, 8)
    assert weight.nearest_new == pytest.approx(1)
    assert weight.rank_new < 4.01
    later = diversity(trained(copy.deepcopy(wider), steps=20)).of("layer2.conv1.weight")
    assert later.nearest_new < 0.999
    assert later.rank_new > weight.rank_new + 0.1


# -- gradients --------------------------------------------------------------------------------------------------------


def test_gradient_norms_by_block(wider: fx.GraphModule) -> None:
    gm = copy.deepcopy(wider)
    with pytest.raises(fxgrow.UsageError, match="no parameter has a gradient"):
        gradient_norms(gm)
    gm(X).square().sum().backward()
    found = gradient_norms(gm)
    assert [b.block for b in found.blocks] == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    total = torch.nn.utils.get_total_norm([p.grad for p in gm.parameters() if p.grad is not None])
    assert found.total == pytest.approx(float(total), rel=1e-5)
    assert [b.block for b in found.blocks if b.new > 0] == ["layer2"]
    assert found.of("layer2").rms == pytest.approx(found.of("layer2").norm / sqrt(found.of("layer2").entries))
    weight, reader = (gm.get_parameter(f"layer2.conv{k}.weight").grad for k in (1, 2))
    assert weight is not None
    assert reader is not None
    parts = [weight[32:], reader[:, 32:], *(gm.get_parameter(f"layer2.bn1.{k}").grad[32:] for k in ("weight", "bias"))]  # type: ignore[index]  # it has one
    assert found.of("layer2").new == pytest.approx(sqrt(sum(float(g.double().square().sum()) for g in parts)))
    assert [line.split()[0] for line in str(found).splitlines()[1:]] == [b.block for b in found.blocks]


def test_blocks_of_ones_own_choice(wider: fx.GraphModule) -> None:
    gm = copy.deepcopy(wider)
    gm(X).square().sum().backward()
    deeper = gradient_norms(gm, depth=2)
    assert "layer2.conv1" in {b.block for b in deeper.blocks}
    assert deeper.total == pytest.approx(gradient_norms(gm).total)
    mine = gradient_norms(gm, block=lambda name: "norms" if ".bn" in name else None)
    assert [b.block for b in mine.blocks] == ["norms"]
    with pytest.raises(fxgrow.UsageError, match="depth must be at least 1"):
        gradient_norms(gm, depth=0)


def test_new_entries_where_two_axes_grew() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    gm = fxgrow.widen(fxgrow.trace(model, (x,)), ["0", "2"], by=2)
    gm(x).square().sum().backward()
    grad = gm.get_parameter("2.weight").grad
    assert isinstance(grad, Tensor)
    assert grad.shape == (6, 6)
    found = gradient_norms(gm, block=lambda name: name).of("2.weight")
    assert found.new == pytest.approx(sqrt(float(grad.square().sum() - grad[:4, :4].square().sum())), rel=1e-4)


def test_parameters_without_a_gradient_are_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    found = gradient_norms(model)
    assert found.of("0").without == ("0.weight", "0.bias")
    assert (found.of("0").norm, found.of("0").rms, found.of("1").new) == (0.0, 0.0, 0.0)
    assert found.total > 0
