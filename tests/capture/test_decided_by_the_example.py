"""What `forward` asks of sizes is decided by the example inputs; inputs that would decide otherwise raise an error."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LONGER = torch.cat([X, X, X], 1)
MORE = torch.cat([X, X], 0)


class Net(nn.Module):
    """Two layers with some code between them."""

    def __init__(self, between: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.between = nn.Linear(4, 8), between
        self.b: nn.Module = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The code sees the input and the hidden units."""
        y: Tensor = self.b(self.between(x, torch.tanh(self.a(x))))
        return y


def condition(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if x.shape[-2] < 8 else y


def assertion(x: Tensor, y: Tensor) -> Tensor:
    assert x.shape[1] % 3 == 0
    assert x.shape[1] < 8
    return y


def loop(x: Tensor, y: Tensor) -> Tensor:
    for part in x.unbind(1):
        y = y + part.mean()
    return y


def over_a_tensor(x: Tensor, y: Tensor) -> Tensor:
    for row in x.transpose(0, 1):
        y = y + row.mean()
    return y


def counted(x: Tensor, y: Tensor) -> Tensor:
    for k in range(x.shape[1]):
        y = y + k
    return y


def length(x: Tensor, y: Tensor) -> Tensor:
    return y * len(x.transpose(0, 1))


def parts(x: Tensor, y: Tensor) -> Tensor:
    return y * len(list(x.split(4, 1)))


def whole_number(x: Tensor, y: Tensor) -> Tensor:
    return y * int(x.shape[1] ** 0.5 + 1e-9)


def real_number(x: Tensor, y: Tensor) -> Tensor:
    return y * float(x.shape[1])


def larger(x: Tensor, y: Tensor) -> Tensor:
    return y * max(x.shape[1], 5)


def number_of_entries(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if x.numel() > 50 else y


def whole_shape(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if x.shape[1:] == (3, 4) else y


GUARDED = (condition, assertion, loop, over_a_tensor, counted, length, parts, whole_number, real_number, larger)
ALL = (*GUARDED, number_of_entries, whole_shape)


@pytest.mark.parametrize("between", ALL, ids=lambda f: f.__name__)
def test_another_decision_raises_in_traced_grown_copied_and_pickled_models(between: Callable[[Any, Any], Any]) -> None:
    net = Net(between).double().eval()
    traced = fxgrow.trace(net, (X,))
    grown = fxgrow.widen(traced, "a")
    for model in (traced, grown, copy.deepcopy(grown), pickle.loads(pickle.dumps(grown))):
        torch.testing.assert_close(model(X), net(X), rtol=0, atol=1e-12)
        with pytest.raises(fxgrow.UsageError, match="FXG010") as caught:
            model(LONGER)
        assert between.__name__ in str(caught.value)
        assert "test_decided_by_the_example.py" in str(caught.value)
        assert caught.value.kind is fxgrow.Kind.OTHER_DECISION
    plan = fxgrow.plan_widen(traced, "a")
    again = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), fxgrow.trace(net, (X,)))
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        again(LONGER)


@pytest.mark.parametrize("between", [condition, loop, number_of_entries], ids=lambda f: f.__name__)
def test_sizes_that_decide_the_same_pass(between: Callable[[Any, Any], Any]) -> None:
    net = Net(between).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    torch.testing.assert_close(grown(MORE), net(MORE), rtol=0, atol=1e-12)


def test_plan_and_certificate_name_the_guard() -> None:
    net = Net(loop).double().eval()
    traced = fxgrow.trace(net, (X,))
    plan = fxgrow.plan_widen(traced, "a")
    assert any("decided by the example inputs" in note and "in loop" in note for note in plan.notes)
    certificate = fxgrow.verify(net, fxgrow.apply(plan, traced), example_inputs=(X,))
    assert certificate
    assert any("in loop" in note for note in certificate.notes)


def test_other_sizes_are_tried_where_a_guard_raises() -> None:
    traced = fxgrow.trace(Net(loop).double().eval(), (X,))
    compared = traced.meta["fxgrow_compared"]
    assert any("inputs of 3x3x4" in note for note in compared), compared
    assert not any(note.startswith("not compared") for note in compared)


def test_a_guard_against_all_other_sizes_is_said() -> None:
    traced = fxgrow.trace(Net(lambda x, y: y * 2 if x.shape == (2, 3, 4) else y).double().eval(), (X,))
    notes = [note for note in traced.meta["fxgrow_compared"] if note.startswith("not compared at other sizes")]
    assert notes
    assert "is True" in notes[0]


def test_a_batch_of_one_that_a_guard_refuses_is_no_difference() -> None:
    net = Net(lambda x, y: y + sum(part.mean() for part in x.unbind(0))).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    certificate = fxgrow.verify(net, grown, example_inputs=(X,))
    assert certificate
    assert any("batch of one" in note and "FXG010" in note for note in certificate.notes)


def guards(traced: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """The nodes that hold a graph to its example inputs."""
    return [n for n in traced.graph.nodes if getattr(n.target, "__name__", "") == "decided"]


@pytest.mark.parametrize(
    "between",
    [
        lambda x, y: torch.cat(list(y.chunk(2, 2)), 2),
        lambda x, y: torch.cat([part.tanh() for part in y.split([4, 4], -1)], -1),
        lambda x, y: z if (z := y.view(y.shape[0], y.shape[1], 8)).dim() == 3 else y,
        lambda x, y: y + sum(x.max(1)[0].mean() for _ in x.max(1)),
    ],
    ids=["chunk", "split", "rank of a view", "names of a result"],
)
def test_what_no_input_can_change_costs_no_node(between: Callable[[Any, Any], Any]) -> None:
    net = Net(between).double().eval()
    traced = fxgrow.trace(net, (X,))
    assert not guards(traced)
    torch.testing.assert_close(fxgrow.widen(traced, "a", by=8)(X), net(X), rtol=0, atol=1e-12)


def test_a_rank_is_guarded() -> None:
    def ranks(x: Tensor, y: Tensor) -> Tensor:
        return y * 2 if x.dim() == 3 else y

    traced = fxgrow.trace(Net(ranks).double().eval(), (X,))
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        traced(X[0])


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda x, y: y * 2 if y.shape[-1] < 12 else y, "at the new width it would be False"),
        (lambda x, y: y * int(y.shape[-1]), "at the new width it would be 16"),
        (lambda x, y: y * 2 if y.shape[-1] * y.shape[1] > 20 else y, "on the width and on sizes of the inputs"),
        (lambda x, y: y * 2 if y.numel() > 40 else y, "on the width and on sizes of the inputs"),
        (lambda x, y: y * 2 if y.shape[-1] > x.shape[1] else y, "on the width and on sizes of the inputs"),
    ],
)
def test_a_width_that_would_decide_otherwise_is_refused(between: Callable[[Any, Any], Any], why: str) -> None:
    traced = fxgrow.trace(Net(between).double().eval(), (X,))
    with pytest.raises(fxgrow.GrowthRefused, match="FXG119") as caught:
        fxgrow.widen(traced, "a")
    assert why in str(caught.value)
    assert "test_decided_by_the_example.py" in str(caught.value)


def test_a_width_may_decide_if_the_answer_stays() -> None:
    net = Net(lambda x, y: y * 2 if y.shape[-1] < 20 and x.shape[1] < 8 else y).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    torch.testing.assert_close(grown(MORE), net(MORE), rtol=0, atol=1e-12)
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        grown(LONGER)


@pytest.mark.parametrize(
    "between",
    [
        lambda x, y: y + torch.ones(x.size(0), 1, 8, dtype=x.dtype),
        lambda x, y: y + torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[:, None],
        lambda x, y: y.reshape(*x.shape[:-1], y.shape[-1]),
        lambda x, y: y * math.ceil(x.shape[1] / 2) + round(x.shape[1] / 3) + math.floor(x.shape[0] / 2),
        lambda x, y: y * divmod(x.shape[1], 2)[0] + torch.full((x.shape[1], 1), 0.5, dtype=x.dtype),
        lambda x, y: y.clamp(min=torch.finfo(x.dtype).min),
        lambda x, y: y + torch.eye(x.shape[1], dtype=x.dtype).mean(),
        lambda x, y: y + torch.arange(8, dtype=torch.float64).expand(x.shape[0], x.shape[1], 8),
    ],
    ids=["ones", "arange", "star", "rounded", "divmod", "finfo", "eye", "a constant that is repeated"],
)
def test_sizes_that_are_only_passed_on_follow_the_input(between: Callable[[Any, Any], Any]) -> None:
    net = Net(between).double().eval()
    traced = fxgrow.trace(net, (X,))
    for model in (traced, pickle.loads(pickle.dumps(traced))):
        for x in (X, LONGER, MORE):
            torch.testing.assert_close(model(x), net(x), rtol=0, atol=0)


class C2f(nn.Module):
    """Of YOLOv8."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 5, 1)
        self.inner = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """A list of parts, to which others are added."""
        y = list(self.first(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.inner)
        out: Tensor = self.last(torch.cat(y, 1))
        return out


def test_a_list_of_chunks_grows() -> None:
    torch.manual_seed(0)
    net = C2f().double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (torch.zeros(2, 3, 6, 6, dtype=torch.float64),)), "first")
    for n, size in ((2, 6), (3, 9)):
        x = torch.randn(n, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)


class Padded(nn.Module):
    """A convolution that pads as TensorFlow does, by the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images of even sizes are padded by one."""
        need = [max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:]]
        if need[0] > 0 or need[1] > 0:
            x = nn.functional.pad(x, [need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2])
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


@pytest.mark.parametrize("training", [False, True])
def test_padding_by_the_size_of_the_image(training: bool) -> None:
    net = Padded().double().train(training)
    grown = fxgrow.widen(fxgrow.trace(net, (torch.zeros(2, 3, 8, 8, dtype=torch.float64),)), "a")
    for size in (8, 12, 20):
        x = torch.randn(3, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)


class Features(nn.Module):
    """Adds up what it is given by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """In their order."""
        total: Any = 0
        for name in features:
            total = total * 2 + torch.tanh(self.a(features[name]))
        y: Tensor = self.b(total)
        return y


def test_names_of_inputs_are_guarded() -> None:
    net = Features().double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, ({"one": X, "two": X + 1},)), "a")
    given = {"one": X + 2, "two": X}
    torch.testing.assert_close(grown(given), net(given), rtol=0, atol=1e-12)
    for other in ({"two": X, "one": X}, {"one": X}, {"one": X, "two": X, "three": X}):
        with pytest.raises(fxgrow.UsageError, match="FXG010"):
            grown(other)


def test_without_an_example_the_way_out_is_to_give_one() -> None:
    with pytest.raises(fxgrow.UsageError, match="give example_inputs="):
        fxgrow.trace(Net(condition))


def test_values_are_not_decided() -> None:
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(Net(lambda x, y: y * 2 if x.sum() > 0 else y).double(), (X,))


class Remembers(nn.Module):
    """Keeps a table in a buffer that it makes anew for each length."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("table", torch.zeros(1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The table is added to the hidden units."""
        if self.table.shape[0] != x.shape[1]:
            self.table = torch.arange(x.shape[1], dtype=x.dtype).view(-1, 1)
        y: Tensor = self.b(torch.tanh(self.a(x)) + self.table)
        return y


def test_a_buffer_that_gets_another_shape() -> None:
    torch.manual_seed(0)
    net = Remembers().double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a", scheme="zero")
    for x in (X, LONGER, X):
        torch.testing.assert_close(grown(x), copy.deepcopy(net)(x), rtol=0, atol=1e-12)
        assert grown.get_buffer("table").shape == (x.shape[1], 1)


class Halves(nn.Module):
    """Does more for wide inputs, in a way that only the module itself knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Of any size."""
        y: Tensor = self.inner(x)
        return y * 2 if x.shape[0] < 3 else y


def doubled_where_few(x: Tensor) -> Tensor:
    """What a trace can keep whole."""
    return x * 2 if x.shape[0] < 3 else x


def test_leaves_are_not_looked_into() -> None:
    net = Net(lambda x, y: doubled_where_few(y)).double().eval()
    inner = Halves()
    net.b = nn.Sequential(inner, nn.Linear(8, 3)).double()
    several: list[list[Any]] = [[Halves, doubled_where_few], [inner, doubled_where_few]]
    for leaf in several:
        traced = fxgrow.trace(net, (X,), leaf=leaf)
        assert not guards(traced)
        for model in (traced, pickle.loads(pickle.dumps(traced))):
            for x in (X, MORE):
                torch.testing.assert_close(model(x), net(x), rtol=0, atol=1e-12)


def test_one_leaf_needs_no_list() -> None:
    net = Net(lambda x, y: doubled_where_few(y)).double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (X,), leaf=doubled_where_few), "a")
    for x in (X, MORE):
        torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", [nn.Conv2d, torch.relu, 3, nn.Linear(2, 2)])
def test_what_can_be_no_leaf_is_refused(leaf: Any) -> None:
    with pytest.raises(fxgrow.UsageError, match="FXG004"):
        fxgrow.trace(Net(condition), (X.float(),), leaf=leaf)


class Reverse(torch.autograd.Function):
    """Reverses gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The same."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The other way round."""
        return -gradients[0]


class Reversed(nn.Module):
    """The way out that the refusal names."""

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        y: Tensor = Reverse.apply(x)
        return y


def test_a_custom_gradient_is_not_blamed_on_no_grad() -> None:
    with pytest.raises(fxgrow.UsageError, match=r"the gradient of Reverse, an autograd\.Function") as caught:
        fxgrow.trace(Net(lambda x, y: Reverse.apply(y)).double(), (X,))
    assert "no_grad" not in str(caught.value)
    net = Net(torch.add).double()
    net.b = nn.Sequential(Reversed(), nn.Linear(8, 3)).double()
    net.between = lambda x, y: y
    grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    grown(x).sum().backward()
    net(y).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)


class Supervised(nn.Module):
    """Computes an auxiliary head always, and returns it in training only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.gain = nn.Linear(4, 8), nn.Linear(8, 3), nn.Parameter(torch.ones(8))
        self.aux = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Any:
        """One or two results."""
        y = torch.tanh(self.a(x))
        more = self.aux(y * self.gain)
        return (self.b(y), more) if self.training else self.b(y)


def test_a_layer_whose_result_nobody_reads_grows_along() -> None:
    net = Supervised().double().eval()
    traced = fxgrow.trace(net, (X,))
    grown = fxgrow.widen(fxgrow.widen(traced, "a"), "aux.0")
    torch.testing.assert_close(grown(X), net(X), rtol=0, atol=1e-12)
    shapes = {name: tuple(p.shape) for name, p in grown.named_parameters()}
    assert shapes["gain"] == (16,)
    assert shapes["aux.0.weight"] == (12, 16)
    assert shapes["aux.2.weight"] == (2, 12)
    with pytest.raises(fxgrow.GrowthRefused, match="FXG115"):
        fxgrow.widen(traced, "aux.2")


class Weighted(nn.Module):
    """A weight that is applied in some way."""

    def __init__(self, apply: Callable[[Tensor, Tensor], Tensor], *, twice: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.w, self.b = nn.Linear(4, 8), nn.Parameter(torch.randn(8, 8)), nn.Linear(16 if twice else 8, 3)
        self.apply_weight = apply

    def forward(self, x: Tensor) -> Tensor:
        """Rows are samples."""
        y: Tensor = self.b(self.apply_weight(torch.tanh(self.a(x)), self.w))
        return y


COMPOSED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hstack": lambda y, w: torch.hstack([y, y.sin()]),
    "column_stack": lambda y, w: torch.column_stack([y, y]),
    "vstack": lambda y, w: torch.vstack([y, y]),
    "dstack": lambda y, w: torch.dstack([y, y]).sum(-1),
    "inner": torch.inner,
    "tensordot": lambda y, w: torch.tensordot(y, w, dims=1),
    "multi_dot": lambda y, w: torch.linalg.multi_dot([y, w, w.t()]),
    "log_softmax": lambda y, w: torch.special.log_softmax(y, 0),
    "diff": lambda y, w: torch.diff(y, dim=0),
    "trapezoid": lambda y, w: torch.trapezoid(torch.stack([y, y]), dim=0),
    "flipud": lambda y, w: torch.flipud(y),
    "broadcast_tensors": lambda y, w: torch.broadcast_tensors(y, y[:1])[1],
}


@pytest.mark.parametrize("name", COMPOSED)
def test_operators_that_torch_composes_of_others(name: str) -> None:
    net, x = Weighted(COMPOSED[name], twice=name in ("hstack", "column_stack")).double().eval(), X[0]
    grown = fxgrow.widen(fxgrow.trace(net, (x,)), "a")
    torch.testing.assert_close(grown(x), net(x), rtol=0, atol=1e-12)
    assert grown.get_parameter("a.weight").shape[0] == 16
