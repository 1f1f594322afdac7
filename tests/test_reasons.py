"""A refusal gives the true reason, and what only looked unsupported is grown: computed weights, max_norm, einsum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow import Kind

from .by_hand import BROKEN, SAME, Surgery, effect, grown, read

IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WORDS = torch.tensor([[0, 1, 2, 5], [3, 4, 5, 1]])


class Standardised(nn.Conv2d):
    """A convolution whose kernels have mean 0 and deviation 1, each by itself or all together."""

    together = False

    def forward(self, x: Tensor) -> Tensor:
        w, over = self.weight, (0, 1, 2, 3)[not self.together :]
        w = (w - w.mean(over, keepdim=True)) / w.std(over, keepdim=True)  # standardised
        return F.conv2d(x, w, self.bias)


class Together(Standardised):
    """All kernels together."""

    together = True


class Net(nn.Module):
    """first, middle (whose weight is computed), last."""

    def __init__(self, middle: type[Standardised] = Standardised) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.middle = middle(4, 6, 3, bias=False)
        self.last = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.middle(F.relu(self.first(x)))))
        return y


class Dynamic(nn.Module):
    """A kernel that depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 4)
        self.first = nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.first.weight * torch.sigmoid(self.gate(x.mean((0, 2, 3))))[:, None, None, None]
        y: Tensor = self.last(F.conv2d(x, w))
        return y


class Bounded(nn.Module):
    """Rows of a table that are kept short."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6, max_norm=1.0)
        self.hidden = nn.Linear(6, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.hidden(self.table(words))))
        return y


class Pairwise(nn.Module):
    """An operator without a rule that has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.centres = nn.Parameter(torch.rand(5, 6))
        self.last = nn.Linear(5, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        y: Tensor = self.last(torch.cdist(x, self.centres))
        return y


class Square(nn.Module):
    """The channels' inner product with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(1, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z: Tensor = self.last(torch.einsum("nchw,nchw->n", y, y)[:, None])
        return z


def refused(model: nn.Module, name: str, *inputs: Tensor, scheme: str = "auto") -> fxgrow.GrowthRefused:
    """The refusal that a model must give."""
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(model, inputs), name, scheme=scheme)
    return caught.value


# -- computed weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["middle", "middle.weight", "conv2d"])
def test_kernels_standardised_one_by_one_grow_by_every_name(name: str) -> None:
    gm = fxgrow.trace(Net().double(), (IMAGE,))
    wider = fxgrow.widen(gm, name)
    assert wider.get_parameter("middle.weight").shape == (12, 4, 3, 3)
    assert fxgrow.verify(gm, wider).held


def test_kernels_standardised_together_grow_by_copies_and_are_refused_others_where_their_mean_is_taken() -> None:
    gm = fxgrow.trace(Net(Together).double(), (IMAGE,))
    assert fxgrow.verify(gm, fxgrow.widen(gm, "middle")).held
    error = refused(Net(Together), "middle", IMAGE.float(), scheme="r2r")
    assert error.kind is Kind.STATISTIC
    assert "cannot widen middle.weight: its channels reach a statistic over the whole axis" in str(error)
    assert "# standardised" in str(error)


def test_readers_of_a_standardised_kernel_are_refused_and_the_chain_names_it() -> None:
    error = refused(Net(), "first", IMAGE.float(), scheme="r2r")
    assert error.kind is Kind.STATISTIC
    assert "middle.weight (parameter) -> mean" in str(error)


def test_readers_of_a_standardised_kernel_are_copied_and_their_writers_share() -> None:
    gm = fxgrow.trace(Net().double(), (IMAGE,))
    plan = fxgrow.plan_widen(gm, "first")  # relu(x / 2) = relu(x) / 2
    assert [t.states for t in plan.tensors] == [("split",), ("split",), ("copy",)]
    assert fxgrow.verify(gm, fxgrow.apply(plan, gm)).held


def test_a_weight_computed_from_the_input_is_told_with_the_node_that_computes_it() -> None:
    error = refused(Dynamic(), "conv2d", IMAGE.float())
    assert error.kind is Kind.NO_AXIS
    assert "conv2d gives birth to no axis: its weight is computed by mul from the inputs of the model" in str(error)
    assert "it carries the channels of gate" in str(error)
    gm = fxgrow.trace(Dynamic().double(), (IMAGE,))
    assert fxgrow.verify(gm, fxgrow.widen(gm, "gate")).held


# -- tables with max_norm ---------------------------------------------------------------------------------------------


def test_a_table_with_max_norm_is_refused_by_name() -> None:
    error = refused(Bounded(), "table", WORDS)
    assert error.kind is Kind.NORM
    assert "max_norm rescales a row by its norm over all columns" in str(error)
    assert "set max_norm=None" in str(error)


def test_its_columns_forced_would_change_the_function_and_without_max_norm_would_not() -> None:
    surgery = Surgery({"table.weight": (1, 1), **read("hidden")})
    model = Bounded().double()
    found = effect(model, grown(model, surgery), (WORDS,))
    assert isinstance(found, float)
    assert found > BROKEN
    model.table.max_norm = None
    found = effect(model, grown(model, surgery), (WORDS,))
    assert isinstance(found, float)
    assert found < SAME


def test_layers_behind_a_table_with_max_norm_grow() -> None:
    gm = fxgrow.trace(Bounded(), (WORDS,))
    wider = fxgrow.widen(gm, "hidden", example_inputs=(WORDS,))
    assert fxgrow.verify(gm, wider, example_inputs=(WORDS,)).held


def test_a_weight_under_an_operator_without_a_rule() -> None:
    error = refused(Pairwise(), "centres", WORDS)
    assert "centres gives birth to no axis: fxgrow has no rule for aten::cdist" in str(error)


# -- what the way out should have mended ------------------------------------------------------------------------------


def test_a_volume_times_itself_adds_up_and_is_not_called_dead() -> None:
    error = refused(Square(), "first", IMAGE.float())
    assert error.kind is Kind.NO_PROOF
    assert "the new units add up and nothing can cancel them" in str(error)
