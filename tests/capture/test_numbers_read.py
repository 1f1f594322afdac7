"""Numbers that a model reads from its buffers, such as counts of batches, while it is recorded without data."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import fxgrow
from fxgrow import Kind
from fxgrow.capture.recording.fake_tensors import fake_of, has_known_value
from fxgrow.capture.recording.recorder import record

X = torch.linspace(-1.0, 1.0, 4 * 6 * 4, dtype=torch.float64).reshape(4, 6, 4).sin() + 0.1
SAME = 1e-12
SCHEMES = ("auto", "r2r", "zero", "net2net")


def norms() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.BatchNorm1d(8, momentum=None), nn.BatchNorm1d(8, momentum=None)
    return nn.Sequential(nn.Linear(4, 8), first, nn.ReLU(), nn.Linear(8, 8), second, nn.Linear(8, 2)).double().train()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_norms_that_average_over_all_batches_grow_in_training_mode(scheme: str) -> None:
    model = norms()
    model[1](model[0](X[0]))  # one of the two has seen a batch more
    seen = copy.deepcopy(model.state_dict())
    traced = fxgrow.trace(model, (X[0],))
    wider = fxgrow.widen(traced, "0", scheme=scheme)
    now = model.state_dict()
    assert all(torch.equal(tensor, now[name]) for name, tensor in seen.items())
    for x in X:
        assert torch.allclose(traced(x), wider(x), rtol=0, atol=SAME)
    counts = [wider.get_buffer(f"{k}.num_batches_tracked") for k in (1, 4)]
    assert list(map(int, counts)) == [5, 4]
    for name in ("1.running_mean", "1.running_var", "4.running_mean"):
        was = traced.get_buffer(name)
        assert torch.allclose(was, wider.get_buffer(name)[: len(was)], rtol=0, atol=SAME)


def test_they_verify() -> None:
    traced = fxgrow.trace(norms(), (X[0],))
    assert fxgrow.verify(traced, fxgrow.widen(traced, "0")).held


def test_models_on_the_meta_device_have_no_counts_to_read_and_grow() -> None:
    model = norms().to("meta")
    wider = fxgrow.widen(fxgrow.trace(model, (X[0].to("meta"),)), "0")
    assert wider.get_parameter("0.weight").shape == (16, 4)


class Leaf(nn.Module):
    """A module that a tracer keeps whole, and that has a count and a number for its work."""

    count: Tensor
    number: Tensor

    def __init__(self, work: Callable[[Leaf, Tensor], Tensor]) -> None:
        super().__init__()
        self.work = work
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("number", torch.tensor([1.5]))
        self.register_buffer("started", torch.tensor(True))

    def forward(self, h: Tensor) -> Tensor:
        return self.work(self, h)


class Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Leaf) or super().is_leaf_module(m, module_qualified_name)


def traced(work: Callable[[Leaf, Tensor], Tensor]) -> fx.GraphModule:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), Leaf(work), nn.Linear(8, 2)).double()
    return fx.GraphModule(net, Tracer().trace(net))


def warm_up(m: Leaf, h: Tensor) -> Tensor:
    m.count += 1
    return h * float(m.count) / (1.0 + float(m.number))


def at_first(m: Leaf, h: Tensor) -> Tensor:
    m.count += 1
    return h.tanh() if int(m.count) == 1 else h


def for_some_time(m: Leaf, h: Tensor) -> Tensor:
    m.count += 1
    return h.tanh() if m.count < 500 else h


def every_tenth(m: Leaf, h: Tensor) -> Tensor:
    m.count += 1
    return h.tanh() if m.count.item() % 10 == 0 else h


def when_started(m: Leaf, h: Tensor) -> Tensor:
    return h.tanh() if m.started else h


def as_many(m: Leaf, h: Tensor) -> Tensor:
    return torch.cat([h, h.new_zeros(h.shape[0], int(m.count))], 1)[:, :8]


def to_a_power(m: Leaf, h: Tensor) -> Tensor:
    return h ** int(m.count)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_factors_that_change_with_each_call_grow(scheme: str) -> None:
    gm = traced(warm_up)
    wider = fxgrow.widen(gm, "_0", scheme=scheme, example_inputs=(X[0],))
    assert int(gm.get_buffer("1.count")) == 5
    for x in X:
        assert torch.allclose(gm(x), wider(x), rtol=0, atol=SAME)


@pytest.mark.parametrize("work", [at_first, for_some_time, every_tenth, when_started, as_many])
def test_what_takes_another_way_in_another_call_is_refused(work: Callable[[Leaf, Tensor], Tensor]) -> None:
    gm = traced(work)
    with pytest.raises(fxgrow.UsageError) as caught:
        fxgrow.widen(gm, "_0", example_inputs=(X[0],))
    assert caught.value.kind is Kind.UNSUPPORTED_MODEL
    assert "what node _1 does in the next call" in str(caught.value)
    assert "torch.where" in str(caught.value)
    assert int(gm.get_buffer("1.count")) == 5


def test_a_power_that_changes_with_each_call_stops_its_channels_alone() -> None:
    gm = traced(to_a_power)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "_0", example_inputs=(X[0],))
    assert caught.value.kind is Kind.CONSTANT
    assert "depends on a number that is read from a tensor, or drawn at random, in each call" in str(caught.value)


# -- fake tensors with a value ------------------------------------------------------------------------------------


def mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def test_a_fake_tensor_counts_and_the_real_one_does_not() -> None:
    count, shared = torch.tensor(3), mode()
    fake = fake_of(count, shared)
    result, calls = record(lambda: (fake.add_(1), float(fake), bool(fake == 4), int(fake * 2)), shared, grad=False)
    assert result[0] is fake
    assert result[1:] == (4.0, True, 8)
    assert int(count) == 3
    assert calls[0][3] is fake  # or the recording would tell the result of an in-place operator from its operand


def test_a_value_that_was_overwritten_with_what_is_not_known_is_not_known() -> None:
    shared = mode()
    fake, other = fake_of(torch.tensor(3.0), shared), fake_of(torch.ones(4), shared)
    view = fake.view(1)

    def call() -> None:
        view.copy_(other.sum())

    record(call, shared, grad=False)
    with pytest.raises(DataDependentOutputException):
        record(lambda: float(fake), shared, grad=False)


@pytest.mark.parametrize(
    ("tensor", "known"),
    [
        (torch.tensor(1), True),
        (torch.tensor([[True]]), True),
        (torch.ones(2), False),
        (nn.Parameter(torch.ones(1)), False),
        (torch.ones((), device="meta"), False),
    ],
)
def test_buffers_of_one_element_have_a_value(tensor: Tensor, known: bool) -> None:
    assert has_known_value(tensor) is known
    fake = fake_of(tensor, mode())
    assert (fake.shape, fake.stride(), fake.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)


def test_each_fake_has_a_value_of_its_own() -> None:
    count, shared = torch.tensor(3), mode()
    one, two = fake_of(count, shared), fake_of(count, shared)
    result, _ = record(lambda: (one.add_(1), int(two)), shared, grad=False)
    assert result[1] == 3
