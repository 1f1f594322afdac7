"""Writes through views: what the lowering makes of them, and growth of models that assign to parts of tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind
from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import AFTER_WRITE, Origin, Program
from fxgrow.testing.execute import run
from tests.oracles.agreement import compare

SAME = 1e-12
"""Relative difference in float64 of two models that compute the same: some hundred roundings."""
X = torch.linspace(-1.0, 1.0, 2 * 3 * 6, dtype=torch.float64).reshape(2, 3, 6).sin()
Body = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Two layers to 8 channels, one from there, and what a test does between them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(8, 8)
        self.c = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def later_tokens(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[..., 1:, :] += net.b(y[:, :-1].tanh())
    z: Tensor = net.c(y)
    return z


def one_token(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 0] += net.b(y[:, 1])
    z: Tensor = net.c(y)
    return z


def cleared(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 1:] = 0
    z: Tensor = net.c(y.tanh())
    return z


def half(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[..., 4:] *= 2
    z: Tensor = net.c(y)
    return z


def some_channels(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[..., :3] = net.b(y)[..., :3]
    z: Tensor = net.c(y)
    return z


def masked(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[x[..., 0] > 0] = 0.0
    z: Tensor = net.c(y)
    return z


def filled(net: Net, x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], x.shape[1], 8)
    y[:, :2] = net.a(x[:, :2])
    y[:, 2:] = net.b(net.a(x[:, 2:]))
    z: Tensor = net.c(y)
    return z


def views_of_views(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    heads, turned = y.view(2, 3, 2, 4), y.transpose(0, 1)
    heads[:, :, 0].mul_(3.0)
    y.add_(1.0)
    turned[1:].relu_()
    z: Tensor = net.c(y) + 2 * net.c(turned.transpose(0, 1)) + net.c(heads.flatten(2))
    return z


def two_halves(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    left, right = y[..., :4], y[..., 4:]
    left.mul_(2.0)
    right.relu_()
    left.add_(right)
    z: Tensor = net.c(y)
    return z


def by_another_name(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    same = y
    same += 1.0
    same *= 0.5
    z: Tensor = net.c(y) + net.c(same.tanh())
    return z


def a_row_by_name(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    first = y[:, 0]
    first += net.b(y[:, 1])
    z: Tensor = net.c(y)
    return z


def rows_of_a_view(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    rows = y.view(-1, 8)
    rows -= net.b(rows.tanh())
    rows /= 2.0
    z: Tensor = net.c(y)
    return z


def one_channel(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[..., 0] += 1
    z: Tensor = net.c(y)
    return z


def every_other_channel(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[..., ::2] *= 2
    z: Tensor = net.c(y)
    return z


def renamed(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    part = y[:]
    part.transpose_(0, 1)
    part.mul_(2.0)
    z: Tensor = net.c(y)
    return z


ALIASES = (by_another_name, a_row_by_name, rows_of_a_view)
"""`x += y` of tensors that are read by another name: it has to stay in place."""
GROW = (later_tokens, one_token, cleared, half, some_channels, masked, filled, views_of_views, two_halves, *ALIASES)
SCHEMES = ("r2r", "zero", "mean", "net2net")
"""net2net does not fill a tensor of zeros: to it they are no copies."""


def traced(body: Body) -> fx.GraphModule:
    return fxgrow.trace(Net(body).double().eval(), (X,))


def program_of(gm: fx.GraphModule) -> Program:
    return lower(Snapshot(gm), (X,))


@pytest.mark.parametrize("body", [*GROW, one_channel, every_other_channel])
def test_the_lowering_without_side_effects_computes_what_the_model_does(body: Body) -> None:
    gm = traced(body)
    program = program_of(gm)
    tensors = dict(gm.named_parameters())
    values = {v.index: tensors[name].detach() for name, v in program.parameters.items()}
    written = [v for v in program.values if v.origin is Origin.CONSTANT]  # torch 2.11 makes a tensor of `= 0`
    values.update((v.index, torch.zeros(v.shape, dtype=v.dtype)) for v in written)
    with torch.no_grad():
        found = run(program, {**values, program.inputs[0].index: X}, lambda op: op.args)
        assert torch.allclose(found[program.outputs[0].index], gm(X), rtol=SAME, atol=SAME)
    assert any(op.step == AFTER_WRITE for op in program.ops) or body in (masked, by_another_name)
    assert "fxgrow::written_through_a_view" not in {op.name for op in program.ops}


@pytest.mark.parametrize("body", [*GROW, one_channel, every_other_channel])
def test_the_axes_agree_with_the_orbits(body: Body) -> None:
    found = compare(program_of(traced(body)))
    assert found.disagreements == ()
    assert found.unknown == ()


@pytest.mark.parametrize("factor", [1.5, 2])
@pytest.mark.parametrize(("body", "scheme"), [(b, s) for b in GROW for s in SCHEMES if (b, s) != (filled, "net2net")])
def test_channels_grow_through_writes(body: Body, scheme: str, factor: float) -> None:
    model = Net(body).double().eval()
    wider = fxgrow.widen(fxgrow.trace(model, (X,)), "a", factor=factor, scheme=scheme)
    assert wider.get_parameter("a.weight").shape[0] == 8 * factor
    with torch.no_grad():
        was, now = model(X), wider(X)
    assert float((now - was).abs().max() / was.abs().max()) < SAME


@pytest.mark.parametrize(("body", "kind"), [(one_channel, Kind.INDEX), (every_other_channel, Kind.INDEX)])
def test_channels_that_are_written_by_number_are_refused_by_name(body: Body, kind: Kind) -> None:
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced(body), "a")
    assert caught.value.kind is kind
    assert "y[..., " in str(caught.value)


def test_a_view_that_was_turned_in_place_cannot_be_followed_back() -> None:
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced(renamed), "a")
    assert caught.value.kind is Kind.ALIAS
    assert "part.transpose_(0, 1)" in str(caught.value)


def test_a_constant_that_only_a_written_view_holds_is_edited() -> None:
    wider = fxgrow.widen(traced(two_halves), "a")
    assert "slice(8, None, None)" in wider.code


def test_pieces_of_one_cut_leave_each_other_alone() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        left, right = net.a(x).unbind(0)
        left.mul_(2.0)
        y: Tensor = net.c(F.relu(left)) + net.c(right)
        return y

    program = program_of(traced(body))
    assert not [op for op in program.ops if op.step == AFTER_WRITE]


def test_a_write_that_runs_without_gradients_only() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        left, right = y.chunk(2, 0)
        left += right
        z: Tensor = net.c(y)
        return z

    model = Net(body).double().eval()
    gm = fxgrow.trace(model, (X,))
    wider = fxgrow.widen(gm, "a")
    with torch.no_grad():
        assert torch.equal(gm(X), model(X))
        assert torch.allclose(wider(X), model(X), rtol=SAME, atol=SAME)


@pytest.mark.parametrize(
    "body",
    [
        lambda net, x: net.c(net.a(x).unsqueeze_(1).squeeze_(1)),
        lambda net, x: net.c(net.a(x).unsqueeze_(1).transpose_(1, 2).squeeze_(2)),
        lambda net, x: net.c(net.a(x).t_().t_()),
        lambda net, x: net.c(net.a(x).swapaxes_(0, 1).swapaxes_(0, 1).relu_()),
    ],
)
def test_shapes_that_change_in_place_grow(body: Body) -> None:
    net = Net(body).double()
    x = X[:, 0].repeat(3, 1)
    wider = fxgrow.widen(fxgrow.trace(net, (x,)), "a")
    for inputs in (x, x[:4]):
        torch.testing.assert_close(wider(inputs), net(inputs), rtol=0, atol=SAME)
