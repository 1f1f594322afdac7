"""Every scheme on real small networks: the function stays, and new units hold what the scheme says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind
from fxgrow.plans import Plan, TensorEdit
from fxgrow.plans.layout import Layout, leaves, old_positions, units
from fxgrow.schemes import SCHEMES

from ..models.scheme import NETS, Net

EXACT = 1e-12
"""Relative, in float64: rounding of sums of a hundred terms."""
NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.1}
"""Relative: some rounding errors of the dtype one after another."""
GROWN = [(net, scheme) for net in NETS for scheme in SCHEMES if scheme not in NETS[net].refusals]
REFUSED = [(net, scheme) for net in NETS for scheme in NETS[net].refusals]


def widened(
    net: Net, scheme: str, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[fx.GraphModule, fx.GraphModule, Plan]:
    """A network before and after it is doubled, and the plan."""
    before = fxgrow.trace(net.made(dtype).eval(), (net.input(dtype),))
    plan = fxgrow.plan_widen(before, net.node, scheme=scheme, **options)
    return before, fxgrow.apply(plan, before), plan


def apart(before: fx.GraphModule, after: fx.GraphModule, x: Tensor) -> float:
    """The largest difference relative to the largest output."""
    with torch.no_grad():
        a, b = before(x), after(x)
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize(("net", "scheme"), GROWN)
def test_the_function_stays_in_both_modes(net: str, scheme: str) -> None:
    before, after, plan = widened(NETS[net], scheme)
    assert plan.growths
    assert plan.eval_only == ()
    for training in (False, True):
        assert apart(before.train(training), after.train(training), NETS[net].input()) <= EXACT


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("net", "options", "grown"),
    [
        ("packed attention", {"grow": "channels", "by": 3 * 2 * 3}, (4, 7)),
        ("packed attention", {"grow": "groups", "factor": 2}, (2, 4)),
        ("residual", {"skip": "reshape"}, ()),
        ("residual", {"skip": "reshape", "adapter": "conv"}, ()),
        ("concatenation", {"by": 3}, ()),
    ],
    ids=["width of heads", "heads", "reshaped skip", "skip through a convolution", "three units"],
)
def test_the_function_stays_in_other_growths(
    net: str, options: dict[str, Any], grown: tuple[int, ...], scheme: str
) -> None:
    before, after, plan = widened(NETS[net], scheme, **options)
    for training in (False, True):
        assert apart(before.train(training), after.train(training), NETS[net].input()) <= EXACT
    assert not grown or [(g.old, g.new) for g in plan.growths] == [grown]


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_grows_models_of_small_dtypes(scheme: str, dtype: torch.dtype) -> None:
    for name, net in NETS.items():
        if scheme not in net.refusals and name != "rms norm of small numbers":  # too small to divide by in bfloat16
            before, after, _ = widened(net, scheme, dtype)
            assert {p.dtype for p in after.parameters()} == {dtype}
            assert apart(before, after, net.input(dtype)) <= NEAR[dtype], name


@pytest.mark.parametrize(("net", "scheme"), REFUSED)
def test_a_scheme_that_cannot_grow_a_network_says_why(net: str, scheme: str) -> None:
    with pytest.raises(GrowthRefused, match=NETS[net].refusals[scheme]) as caught:
        widened(NETS[net], scheme)
    assert f"cannot widen {NETS[net].node}: " in str(caught.value)


@pytest.mark.parametrize("net", NETS)
def test_auto_takes_r2r_wherever_it_proves_and_says_where_it_does_not(net: str) -> None:
    plan = widened(NETS[net], "auto")[2]
    if "r2r" in NETS[net].refusals:
        assert "because r2r cannot: " in plan.notes[0]
    else:
        assert plan.tensors == widened(NETS[net], "r2r")[2].tensors


# -- what old and new entries are -----------------------------------------------------------------------------------


def old_part(tensor: Tensor, edit: TensorEdit) -> Tensor:
    """The entries that were there before."""
    for growth in edit.axes:
        tensor = tensor.index_select(growth.axis, torch.tensor(old_positions(growth.layout)))
    return tensor


def changes(before: fx.GraphModule, after: fx.GraphModule, plan: Plan) -> Iterator[tuple[TensorEdit, Tensor, Tensor]]:
    """Every tensor that grew, before and after."""
    old, new = before.state_dict(), after.state_dict()
    return ((edit, old[edit.names[0]], new[edit.names[0]]) for edit in plan.tensors)


@pytest.mark.parametrize(("net", "scheme"), [(n, s) for n, s in GROWN if s in ("r2r", "zero", "mean", "morphism")])
def test_old_entries_stay_bit_for_bit_but_for_the_scales_of_norms(net: str, scheme: str) -> None:
    for edit, old, new in changes(*widened(NETS[net], scheme)):
        if edit.scale == 1:
            assert torch.equal(old_part(new, edit), old), edit.names
        else:
            assert "norm" in edit.names[0] or edit.names[0] in ("last.weight", "scale")
            assert edit.scale == pytest.approx(2**-0.5)
            assert torch.equal(old_part(new, edit), old * edit.scale)


def growing(edit: TensorEdit) -> Iterator[tuple[int, Layout, int, str, tuple[int, ...]]]:
    """Every growing set of an edit: its axis, layout and number, its state and copy map."""
    for growth in edit.axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            yield growth.axis, growth.layout, number, leaf.state, leaf.source


@pytest.mark.parametrize("net", [net for net, scheme in GROWN if scheme == "net2net"])
def test_net2net_copies_writers_and_shares_readers_out(net: str) -> None:
    states = set()
    for edit, old, new in changes(*widened(NETS[net], "net2net")):
        shares = old.clone()
        for axis, layout, number, state, source in growing(edit):
            states.add(state)
            if state == "zero":  # a weight with two roles
                continue
            rows = [torch.tensor(row) for row in units(layout, number)]
            for k, unit in enumerate(source):
                copy = new.index_select(axis, rows[len(rows) - len(source) + k])
                assert torch.equal(copy, new.index_select(axis, rows[unit]))
            if state == "split":
                count = torch.ones(new.shape[axis], dtype=old.dtype)
                for unit in source:
                    count[rows[unit]] += 1
                kept = count[torch.tensor(old_positions(layout))]
                shares /= kept.view([-1 if k == axis else 1 for k in range(old.dim())])
        assert torch.allclose(old_part(new, edit), shares, rtol=EXACT)
    lone = ("softmax", "tied, no norm")  # a softmax shares out by itself, and a tied weight is zero where it reads
    assert states >= ({"copy"} if net in lone else {"copy", "split"})


def test_net2net_draws_its_map_from_the_seed_and_copies_equally_often_where_a_norm_asks_for_it() -> None:
    def maps(net: str, seed: int) -> set[tuple[int, ...]]:
        gm = fxgrow.trace(NETS[net].made(), (NETS[net].input(),))
        plan = fxgrow.plan_widen(gm, NETS[net].node, factor=3, scheme="net2net", seed=seed)
        return {source for edit in plan.tensors for *_, source in growing(edit)}

    assert len(maps("convolutions", 0)) == 1
    assert maps("convolutions", 0) == maps("convolutions", 0) != maps("convolutions", 1)
    assert {max(map(source.count, source)) for source in maps("softmax", 0)} == {2}
    assert maps("softmax", 0) == maps("softmax", 1)


def test_new_units_of_a_stream_are_the_mean_of_its_old_ones() -> None:
    before, after, plan = widened(NETS["tied, layer norm"], "mean")
    held = {edit.names[0]: edit.states for edit in plan.tensors}
    assert held["words.weight"] == held["down.weight"] == held["down.bias"] == ("mean",)
    assert held["norm.bias"] == ("zero",)
    for name in ("words.weight", "down.weight"):
        old, new = before.get_parameter(name), after.get_parameter(name)
        axis = old.shape.index(8)
        assert torch.allclose(new.narrow(axis, 8, 8), old.mean(axis, keepdim=True).expand_as(old), rtol=EXACT)


def test_the_row_of_a_padding_word_is_worked_out_like_any_other() -> None:
    for scheme in ("net2net", "mean"):
        net = NETS["tied, layer norm"]
        model = net.made()
        with torch.no_grad():
            model.get_parameter("words.weight")[0] = torch.arange(8.0)  # as from pretrained embeddings
        before = fxgrow.trace(model.eval(), (net.input(),))
        assert apart(before, fxgrow.widen(before, "words", scheme=scheme), net.input()) <= EXACT


def test_morphism_zeroes_the_side_with_fewer_entries() -> None:
    states = {edit.names[0]: edit.states for edit in widened(NETS["concatenation"], "morphism")[2].tensors}
    assert states == {"writer.weight": ("free",), "writer.bias": ("free",), "reader.weight": ("zero",)}
    attention = {edit.names[0]: edit.states for edit in widened(NETS["grouped attention"], "morphism")[2].tensors}
    assert "zero" in attention["k.weight"] + attention["q.weight"]


# -- learning -------------------------------------------------------------------------------------------------------

ALIVE = 1e-9
"""A gradient above rounding."""


def _largest_new(grad: Tensor | None, edit: TensorEdit) -> float:
    assert grad is not None
    fresh = torch.ones(grad.numel(), dtype=torch.bool)
    fresh[old_part(torch.arange(grad.numel()).view(grad.shape), edit).flatten()] = False
    return float(grad.flatten()[fresh].abs().max())


def learning(net: str, scheme: str, steps: int) -> list[dict[str, float]]:
    """For each step of gradient descent, the largest gradient of each parameter's new entries."""
    _, after, plan = widened(NETS[net], scheme)
    after.train()
    found = []
    for step in range(steps):
        after.zero_grad()
        output = after(NETS[net].input())
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(step), dtype=output.dtype)
        (output - target).square().mean().backward()
        grads = {name: p.grad for name, p in after.named_parameters()}
        found.append({e.names[0]: _largest_new(grads[e.names[0]], e) for e in plan.tensors if e.names[0] in grads})
        torch.optim.SGD(after.parameters(), 0.05).step()
    return found


BEFORE_A_NORM = {"convolutions": {"writer.bias"}, "grouped convolution": {"writer.bias"}, "residual": {"first.bias"}}
"""Biases that a batch norm takes away again."""


@pytest.mark.parametrize("net", ["convolutions", "grouped convolution", "residual", "concatenation", "chunks", "glu"])
def test_all_new_entries_of_r2r_learn_at_the_first_step(net: str) -> None:
    (first,) = learning(net, "r2r", 1)
    assert {name for name, size in first.items() if size < ALIVE} <= BEFORE_A_NORM.get(net, set())


@pytest.mark.parametrize("net", ["convolutions", "concatenation", "chunks", "glu"])
def test_readers_of_zero_learn_at_the_first_step_and_writers_at_the_second(net: str) -> None:
    first, second = learning(net, "zero", 2)
    dead = BEFORE_A_NORM.get(net, set())
    assert {name for name, size in first.items() if size >= ALIVE} == {"reader.weight"}
    assert {name for name, size in second.items() if size < ALIVE} <= dead


def test_writers_of_an_rms_norm_learn_first_and_its_readers_from_the_second_step_on() -> None:
    first, second = learning("rms norm of small numbers", "zero", 2)
    assert {name for name, size in first.items() if size >= ALIVE} == {"writer.weight", "writer.bias"}
    assert all(size >= ALIVE for size in second.values())


class SomeGroupsStay(nn.Module):
    """Groups of channels, of which the first comes from the input, are interleaved; then their mean is taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        groups = torch.cat([x[:, :2], self.conv(x)], 1).view(x.shape[0], 3, 2, 4, 4)
        mixed = groups.transpose(1, 2).flatten(1, 2)
        out: Tensor = self.head(mixed - mixed.mean(1, keepdim=True))
        return out


def test_copies_of_some_groups_only_change_a_mean_over_all_of_them() -> None:
    inputs = (torch.zeros(2, 3, 4, 4),)
    model = fxgrow.trace(SomeGroupsStay().eval(), inputs)
    with pytest.raises(GrowthRefused) as refused:
        fxgrow.widen(model, node="conv", factor=2, scheme="net2net")
    assert refused.value.kind is Kind.STATISTIC
    assert fxgrow.verify(model, fxgrow.widen(model, node="conv", factor=2)).held  # zeros leave the sum
