"""Models that write into their own buffers and parameters: they grow, and go on as the original does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind
from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import AFTER_WRITE, STORED, Program
from fxgrow.capture.tracing.tracer import GrowthTracer
from fxgrow.proof.prove import ProofDomain
from fxgrow.schemes.parity import ParityDomain
from tests.oracles.agreement import compare

SAME = 1e-12
"""Largest difference in float64 of two models that compute the same, of numbers near one: some hundred roundings."""
CALLS = 4
X = torch.linspace(-1.0, 1.0, CALLS * 6 * 4, dtype=torch.float64).reshape(CALLS, 6, 4).sin() + 0.1
SCHEMES = ("auto", "r2r", "zero", "net2net")
Body = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A layer to 8 channels, one from there, and between them what a test does with buffers along these channels."""

    mean: Tensor
    var: Tensor
    calls: Tensor
    queue: Tensor
    proto: Tensor

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a = nn.Linear(4, 8)
        self.b = nn.Linear(8, 2)
        self.gain = nn.Parameter(torch.rand(8) + 0.5)
        self.register_buffer("mean", torch.rand(8))
        self.register_buffer("var", torch.rand(8) + 0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("queue", torch.rand(8, 12))
        self.register_buffer("proto", torch.rand(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.a(x))


class Tracer(GrowthTracer):
    """Sees buffers as nodes of the graph."""

    proxy_buffer_attributes = True


def traced(body: Body, *, training: bool = True) -> fx.GraphModule:
    net = Net(body).double().train(training)
    return fx.GraphModule(net, Tracer().trace(net)).train(training)


def by_hand(net: Net, h: Tensor) -> Tensor:
    m = net.mean
    if net.training:
        m = h.mean(0)
        net.mean.mul_(0.9).add_(m.detach(), alpha=0.1)
    y: Tensor = net.b(torch.relu((h - m) * net.gain))
    return y


def both_moments(net: Net, h: Tensor) -> Tensor:
    m, v = net.mean, net.var
    if net.training:
        m, v = h.mean(0), h.var(0, correction=0)
        net.mean.copy_(0.9 * net.mean + 0.1 * m.detach())
        net.var.lerp_(v.detach(), 0.1)
        net.calls.add_(1)
    y: Tensor = net.b(torch.relu((h - m) / (v + 1e-5).sqrt() * net.gain))
    return y


def old_and_new(net: Net, h: Tensor) -> Tensor:
    before = h - net.mean
    net.mean[:] = 0.5 * net.mean + 0.5 * h.mean(0)
    y: Tensor = net.b(torch.tanh(before)) + net.b(torch.tanh(h - net.mean))
    return y


def through_a_view(net: Net, h: Tensor) -> Tensor:
    halves = net.mean.view(2, 4)
    halves.mul_(0.5)
    y: Tensor = net.b(torch.tanh(h - net.mean)) + net.b(halves.flatten() * h)
    return y


def in_two_parts(net: Net, h: Tensor) -> Tensor:
    net.mean[:4] = h.mean(0)[:4]
    net.mean[4:].mul_(0.5)
    y: Tensor = net.b(torch.tanh(h + net.mean))
    return y


def clipped(net: Net, h: Tensor) -> Tensor:
    net.gain.detach().clamp_(0.7, 1.2)
    y: Tensor = net.b(torch.relu(h * net.gain))
    return y


def overwritten(net: Net, h: Tensor) -> Tensor:
    last = h - net.mean
    net.mean.copy_(h[-1].detach())
    y: Tensor = net.b(torch.relu(last))
    return y


def emptied(net: Net, h: Tensor) -> Tensor:
    y: Tensor = net.b(torch.relu(h + net.mean))
    net.mean.zero_()
    return y


def one_number(net: Net, h: Tensor) -> Tensor:
    y: Tensor = net.b(torch.relu(h + net.mean))
    net.mean.fill_(0.25)
    return y


def queued(net: Net, h: Tensor) -> Tensor:
    net.queue[:, 6:] = net.queue[:, :6].clone()
    net.queue[:, :6] = h.detach().t()
    y: Tensor = net.b(torch.relu(h + net.queue.mean(1)))
    return y


def counted(net: Net, h: Tensor) -> Tensor:
    net.calls.add_(1)
    y: Tensor = net.b(torch.relu(h)) / net.calls
    return y


GROW: tuple[Body, ...] = (
    *(by_hand, both_moments, old_and_new, through_a_view, in_two_parts),
    *(clipped, overwritten, emptied, one_number, queued, counted),
)


APART = {through_a_view, in_two_parts}
"""Where old units do not come first afterwards, for each half grows by itself."""


def leading(old: Tensor, new: Tensor) -> Tensor:
    """What a grown tensor holds at the old units, which come first."""
    return new[tuple(slice(n) for n in old.shape)]


def difference(before: fx.GraphModule, after: fx.GraphModule, *, training: bool = True, kept: bool = True) -> float:
    """The largest difference between two models that are called on the same data, one batch after the other: in what
    they return and, if `kept`, in what their buffers hold of the old units."""
    one, two = copy.deepcopy(before).train(training), copy.deepcopy(after).train(training)
    gap = 0.0
    with torch.no_grad():
        for x in X:
            gap = max(gap, float((one(x) - two(x)).abs().max()))
            now = dict(two.state_dict())
            gaps = [float((t - leading(t, now[name])).abs().max()) for name, t in one.named_buffers() if kept]
            gap = max(gap, *gaps, 0.0)
    return gap


def program_of(gm: fx.GraphModule) -> Program:
    return lower(Snapshot(gm), (X[0],))


@pytest.mark.parametrize("factor", [1.5, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("body", GROW)
def test_channels_grow_and_every_call_is_as_before(body: Body, scheme: str, factor: float) -> None:
    gm = traced(body)
    wider = fxgrow.widen(gm, "a", factor=factor, scheme=scheme, example_inputs=(X[0],))
    assert wider.get_parameter("a.weight").shape[0] == 8 * factor
    assert difference(gm, wider, kept=body not in APART) < SAME


@pytest.mark.parametrize("body", [by_hand, both_moments])
def test_growth_in_evaluation_mode_leaves_buffers_alone(body: Body) -> None:
    gm = traced(body, training=False)
    wider = fxgrow.widen(gm, "a", example_inputs=(X[0],))
    assert difference(gm, wider, training=False) < SAME


def test_training_goes_on_as_before() -> None:
    gm = traced(both_moments)
    wider = fxgrow.widen(gm, "a", scheme="r2r", example_inputs=(X[0],))
    gm(X[0]).sum().backward()
    wider(X[0]).sum().backward()
    was, now = gm.get_parameter("b.bias").grad, wider.get_parameter("b.bias").grad
    assert was is not None
    assert now is not None
    assert torch.allclose(was, now, rtol=0, atol=SAME)


class HandNorm(nn.Module):
    """A batch norm by hand, which a tracer keeps whole."""

    mean: Tensor
    calls: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        m = self.mean
        if self.training:
            self.calls += 1
            m = x.mean(0)
            with torch.no_grad():
                self.mean.mul_(0.9).add_(m, alpha=0.1)
        y: Tensor = (x - m) * self.gain
        return y


class Leaves(fx.Tracer):
    """Keeps norms by hand whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, HandNorm) or super().is_leaf_module(m, module_qualified_name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_norm_by_hand_kept_whole(scheme: str, training: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), HandNorm(8), nn.ReLU(), nn.Linear(8, 2)).double().train(training)
    gm = fx.GraphModule(net, Leaves().trace(net)).train(training)
    wider = fxgrow.widen(gm, "_0", scheme=scheme, example_inputs=(X[0],))
    assert wider.get_buffer("1.mean").shape == (16,)
    assert difference(gm, wider, training=training) < SAME


def test_a_norm_by_hand_leaves_what_torchs_own_leaves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, 2)).double().train()
    gm = fxgrow.trace(net, (X[0],))
    assert difference(gm, fxgrow.widen(gm, "0")) < SAME


# -- what must not be believed ------------------------------------------------------------------------------------


def remembered(net: Net, h: Tensor) -> Tensor:
    """Reads the channels with a buffer, into which it writes what it has read: zeros would not stay zeros."""
    y = F.linear(torch.relu(h), net.proto)
    net.proto.copy_(h[:2].detach())
    return y


def test_a_reader_that_is_overwritten_with_channels_is_refused_by_name() -> None:
    for scheme in SCHEMES:
        with pytest.raises(fxgrow.GrowthRefused) as caught:
            fxgrow.widen(traced(remembered), "a", scheme=scheme, example_inputs=(X[0],))
        assert caught.value.kind is Kind.NO_PROOF
        assert "proto, to which the model writes" in str(caught.value)


def test_without_the_demand_the_second_call_would_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for domain in (ProofDomain, ParityDomain):
        monkeypatch.setattr(domain, "keep", lambda *_: None)
    gm = traced(remembered)
    wider = fxgrow.widen(gm, "a", scheme="zero", example_inputs=(X[0],))
    with torch.no_grad():
        assert torch.allclose(gm(X[0]), wider(X[0]), rtol=0, atol=SAME)
        assert not torch.allclose(gm(X[1]), wider(X[1]), rtol=0, atol=1e-3)


def shared_memory(net: Net, h: Tensor) -> Tensor:
    net.mean.mul_(0.5)
    y: Tensor = net.b(torch.relu(h - net.var))
    return y


def test_a_buffer_in_the_memory_of_another_is_not_understood() -> None:
    net = Net(shared_memory).double()
    net.var = torch.cat([net.mean, net.mean]).view(2, 8)[0]  # a part of a larger storage …
    net.mean = net.var.as_strided((8,), (1,), 4)  # … of which another part is read under another name
    gm = fx.GraphModule(net, Tracer().trace(net))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "a", example_inputs=(X[0],))
    assert caught.value.kind is Kind.ALIAS


def by_numbers(net: Net, h: Tensor) -> Tensor:
    net.queue[:, net.calls % 12] = h[0].detach()
    y: Tensor = net.b(torch.relu(h + net.queue.mean(1)))
    return y


def test_a_queue_that_is_written_by_numbers_is_refused_by_name() -> None:
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced(by_numbers), "a", example_inputs=(X[0],))
    assert caught.value.kind is Kind.CONSTANT
    assert "that is read from a tensor" in str(caught.value)


class Scaled(Net):
    """Has one more buffer, of one number."""

    scale: Tensor

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self.register_buffer("scale", torch.ones(()))


def by_its_scale(net: Net, h: Tensor) -> Tensor:
    """Keeps a statistic over all channels, which is one number, from call to call."""
    assert isinstance(net, Scaled)
    y: Tensor = net.b(torch.relu(h) / net.scale)
    net.scale.mul_(0.9).add_(h.abs().amax().detach(), alpha=0.1)
    return y


def test_a_number_that_is_kept_and_depends_on_all_channels_must_stay_what_it_is() -> None:
    net = Scaled(by_its_scale).double()
    gm = fx.GraphModule(net, Tracer().trace(net))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "a", scheme="r2r", example_inputs=(X[0],))
    assert caught.value.kind is Kind.STATISTIC


# -- what the program says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", GROW)
def test_the_axes_agree_with_the_orbits(body: Body) -> None:
    found = compare(program_of(traced(body)))
    assert found.disagreements == ()
    assert found.unknown == ()


def test_a_write_is_kept_although_nobody_reads_it() -> None:
    program = program_of(traced(by_hand))
    stored = [op for op in program.ops if op.name == STORED]
    assert [op.args["before"].names for op in stored] == [("mean",)]
    assert stored[0].step == AFTER_WRITE
    assert stored[0].args["after"].node == "add_"


def test_a_counter_has_nothing_that_could_grow() -> None:
    assert STORED not in {op.name for op in program_of(traced(counted)).ops}
