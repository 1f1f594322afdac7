"""A refusal gives the true reason, and what only looked unsupported is grown: computed weights, max_norm, einsum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow import Kind
from fxgrow.models_zoo.models.operators import subtract_sum
from fxgrow.passes.widen import Grow

from ..proof.by_hand import BROKEN, SAME, Surgery, effect, grown, read

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


class CustomCentres(nn.Module):
    """An operator without a rule that has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.centres = nn.Parameter(torch.rand(5, 6))
        self.last = nn.Linear(6, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        y: Tensor = self.last(x * subtract_sum(self.centres, 0)[0])
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
    assert "node `conv2d` creates no channels: its weight is computed by mul from the inputs of the model" in str(error)
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
    error = refused(CustomCentres(), "centres", WORDS)
    assert "parameter `centres` creates no channels: fxgrow has no rule for fxgrow_zoo::subtract_sum" in str(error)


# -- what the way out should have mended ------------------------------------------------------------------------------


def test_a_volume_times_itself_adds_up_and_is_not_called_dead() -> None:
    error = refused(Square(), "first", IMAGE.float())
    assert error.kind is Kind.NO_PROOF
    assert "the new units add up and nothing can cancel them" in str(error)


# -- einsum -----------------------------------------------------------------------------------------------------------


class Born(nn.Module):
    """Weights whose axes are born in an einsum."""

    def __init__(self, equation: str, *sizes: int, first: bool = False) -> None:
        super().__init__()
        self.enter, self.leave, self.equation, self.first = nn.Linear(5, 8), nn.Linear(6, 3), equation, first
        self.w = nn.Parameter(torch.rand(*sizes) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = torch.einsum(self.equation, *((self.w, x) if self.first else (x, self.w)))
        z: Tensor = self.leave(y.relu().flatten(2))
        return z


@pytest.mark.parametrize(
    ("model", "grow", "shape"),
    [
        (Born("bnc,chd->bnhd", 8, 2, 3), "channels", (8, 2, 6)),
        (Born("bnc,chd->bnhd", 8, 2, 3), "groups", (8, 4, 3)),
        (Born("bnc,cdh->bnhd", 8, 3, 2), "channels", (8, 6, 2)),
        (Born("oc,bnc->bno", 6, 8, first=True), "channels", (12, 8)),
        (Born("hdc,bnc->bnhd", 2, 3, 8, first=True), "groups", (4, 3, 8)),
    ],
)
def test_every_axis_that_an_einsum_gives_birth_to_grows(model: nn.Module, grow: Grow, shape: tuple[int, ...]) -> None:
    gm = fxgrow.trace(model.double(), (torch.rand(2, 4, 5).double(),))
    assert "w" in {site.path for site in fxgrow.inspect(gm).widenable}
    for scheme in ("auto", "r2r", "net2net"):
        wider = fxgrow.widen(gm, "w", grow=grow, scheme=scheme)
        assert wider.get_parameter("w").shape == shape
        assert fxgrow.verify(gm, wider).held


# -- ways out ---------------------------------------------------------------------------------------------------------


class Shared(nn.Module):
    """Two layers make one volume, and one is called once more."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.softmax(self.a(x) + self.b(x), 1) * self.a(x)
        z: Tensor = self.out(self.c(y).relu())
        return z


def test_a_way_out_leads_out() -> None:
    error = refused(Shared(), "a", torch.rand(2, 4), scheme="r2r")
    assert error.refusal.hint.startswith("widen a layer whose channels end elsewhere: c")
    assert not {"a", "b", "a_1"} & set(error.refusal.hint.replace(",", " ").replace(";", " ").split()[8:])


class Many(nn.Module):
    """Products of neighbours among the parts of one tensor."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.enter, self.work, self.leave = nn.Linear(5, 8), nn.Linear(8, parts * 4), nn.Linear(parts // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.work(self.enter(x)).unflatten(-1, (self.parts, 4)).unbind(-2)
        sums = [(y[2 * k] * y[2 * k + 1]).sum(-1) for k in range(self.parts // 2)]
        z: Tensor = self.leave(torch.stack(sums, -1))
        return z


def test_more_parts_than_are_told_apart_are_named() -> None:
    gm = fxgrow.trace(Many(16).double(), (torch.rand(2, 5).double(),))
    assert fxgrow.verify(gm, fxgrow.widen(gm, "work", scheme="r2r")).held
    error = refused(Many(18), "work", torch.rand(2, 5), scheme="r2r")
    assert "told apart by at most 16 parts of one tensor, and here are more" in error.refusal.hint


@pytest.mark.parametrize("scheme", ["zero", "morphism"])
def test_writers_are_zero_where_readers_are_computed(scheme: str) -> None:
    class Positive(nn.Module):
        """A layer that is read with weights above zero, which zeros cannot give."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.kernel = nn.Linear(4, 6), nn.Parameter(torch.randn(3, 6))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.first(x), self.kernel.exp())

    gm = fxgrow.trace(Positive().double(), (torch.randn(5, 4, dtype=torch.float64),))
    wider = fxgrow.widen(gm, "first", factor=2, scheme=scheme, verify=True)
    assert not wider.get_parameter("first.weight")[6:].any()
    assert wider.get_parameter("kernel")[:, 6:].all()
