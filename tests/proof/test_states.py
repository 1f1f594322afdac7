"""What new blocks hold: the choice of signs for whole networks."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind
from fxgrow.models_zoo import ZOO
from fxgrow.plans import Plan
from fxgrow.schemes.parity import Demand, _eliminate

# -- equations of signs ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 1)), max_size=8), st.integers(0, 31))
def test_equations_of_signs_are_solved_or_shown_to_contradict_each_other(
    rows: list[tuple[int, int]], mask: int
) -> None:
    demands = [Demand(form, value, 0, "") for form, value in rows]
    solution = _eliminate(demands, mask)
    if isinstance(solution, dict):
        bits = sum(value << place for place, value in solution.items())
        assert all((form & bits).bit_count() % 2 == value for form, value in rows)
    else:
        assert reduce(lambda x, d: x ^ d.form, solution, 0) == 0
        assert sum(d.value for d in solution) % 2 == 1
        assert not any(all((f & bits).bit_count() % 2 == v for f, v in rows) for bits in range(32))


# -- whole networks -------------------------------------------------------------------------------------------------


def states(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What the new blocks of each tensor hold, axis by axis."""
    return {edit.names[0]: edit.states for edit in plan.tensors}


def chosen(model: nn.Module, inputs: tuple[Tensor, ...], node: str) -> dict[str, tuple[str, ...]]:
    """The states chosen for a growth, after a look at the numbers."""
    traced = fxgrow.trace(model, inputs)
    plan = fxgrow.plan_widen(traced, node)
    certificate = fxgrow.verify(traced, fxgrow.apply(plan, traced))
    assert certificate.held, str(certificate)
    return states(plan)


def of_the_zoo(name: str, node: str) -> dict[str, tuple[str, ...]]:
    """The states chosen for a model of the zoo."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return chosen(ZOO[name].build(), ZOO[name].example_inputs(), node)


def test_writers_are_even_and_readers_odd() -> None:
    found = of_the_zoo("mlp", "fc1")
    assert found == {"fc1.weight": ("even",), "fc1.bias": ("even",), "fc2.weight": ("odd",)}


@pytest.mark.parametrize("node", ["stem", "loop"])
def test_a_recurrent_weight_has_even_rows_and_odd_columns(node: str) -> None:
    assert of_the_zoo("looped_conv", node)["loop.weight"] == ("even", "odd")


def test_one_weight_in_two_places_takes_one_value() -> None:
    found = of_the_zoo("tied_linears", "fc1")
    assert found["fc1.weight"] == ("even", "odd")
    assert found["fc1.bias"] == found["fc2.bias"] == ("even",)


def test_a_weight_that_would_have_to_be_even_and_odd_is_zero() -> None:
    found = of_the_zoo("tied_autoencoder", "encoder")
    assert found == {"encoder.weight": ("zero",), "encoder.bias": ("even",)}


@pytest.mark.parametrize("scheme", ["zero", "morphism", "mean"])
def test_the_bias_of_a_weight_that_is_zero_only_where_it_reads_is_free(scheme: str) -> None:
    inputs = ZOO["tied_autoencoder"].example_inputs()
    traced = fxgrow.trace(ZOO["tied_autoencoder"].build(), inputs)
    plan = fxgrow.plan_widen(traced, "encoder", by=4, scheme=scheme)
    assert states(plan) == {"encoder.weight": ("zero",), "encoder.bias": ("free",)}
    grown = fxgrow.apply(plan, traced)
    bias = grown.get_parameter("encoder.bias")
    with torch.no_grad():
        bias[8:] = bias[8:].abs() + 0.1  # units that are not switched off
    grown(*inputs).square().sum().backward()
    gradient = grown.get_parameter("encoder.weight").grad
    assert gradient is not None
    assert bool(gradient[8:].any())


class Unbiased(nn.Module):
    """An autoencoder with one weight and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.encoder.weight.t())


class Scores(nn.Module):
    """Inner products of what two layers make of the input; of one layer with itself if `shared`."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.q = nn.Linear(6, 4)
        self.k = self.q if shared else nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.q(x) @ self.k(x).transpose(-1, -2)
        return y


class Halved(nn.Module):
    """The sum of a layer's units is added to them before they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x))
        z: Tensor = self.last(y) + y.sum(-1, keepdim=True)
        return z


X = torch.zeros(3, 6)


def test_of_two_activations_that_are_multiplied_one_is_even_and_one_odd() -> None:
    found = chosen(Scores(shared=False), (X,), "q")
    assert {found["q.weight"], found["k.weight"]} == {("even",), ("odd",)}
    assert (found["q.bias"], found["k.bias"]) == (found["q.weight"], found["k.weight"])


def test_a_plain_sum_asks_for_an_odd_writer() -> None:
    found = chosen(Halved(), (X,), "first")
    assert found == {"first.weight": ("odd",), "first.bias": ("odd",), "last.weight": ("even",)}


@pytest.mark.parametrize("model", [Unbiased(), Scores(shared=True)], ids=["tied weight", "product with itself"])
def test_zero_on_both_sides_is_no_way_out_of_a_contradiction(model: nn.Module) -> None:
    with pytest.raises(GrowthRefused, match="them; zeros are not possible: both sides of the sum are zero") as refusal:
        fxgrow.widen(fxgrow.trace(model, (X,)), node=next(name for name, _ in model.named_children()))
    assert refusal.value.kind is Kind.NO_PROOF


class Viewed(nn.Module):
    """A vector whose shape is read, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)
        self.like = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.first(x)).amax(0).view_as(self.like))
        return y


def test_a_tensor_of_which_only_the_shape_is_read_grows_too() -> None:
    found = chosen(Viewed(), (X,), "first")
    assert found["like"] == ("even",)
