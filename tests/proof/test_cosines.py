"""Cosines: k copies of every unit on both sides leave each of them as it is, whatever the norm and its epsilon are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow

SAME = 1e-12
Head = Callable[[Tensor, Tensor], Tensor]
HEADS: dict[str, Head] = {
    "unit vectors": lambda h, w: F.linear(F.normalize(h), F.normalize(w)),
    "an epsilon that matters": lambda h, w: F.linear(F.normalize(h, eps=2.0), F.normalize(w, eps=9.0)),
    "norms of other orders": lambda h, w: F.linear(F.normalize(h, p=1), F.normalize(w, p=3.0, dim=-1)),
    "the largest modulus": lambda h, w: F.linear(F.normalize(h, p=math.inf), w),
    "one side": lambda h, w: F.linear(h, F.normalize(w)),
    "norms by hand": lambda h, w: (
        (h / h.norm(dim=1, keepdim=True).clamp_min(2)) @ (w / (w.norm(dim=1) + 0.5)[:, None]).T
    ),
    "the norm of all": lambda h, w: F.linear(h / h.norm(), w),
    "cosine_similarity": lambda h, w: F.cosine_similarity(h[:, None], w, dim=-1),
    "its epsilon": lambda h, w: F.cosine_similarity(h[:, None], w, -1, 3.0),
}


class Classifier(nn.Module):
    """Features beside the directions of three classes."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Linear(4, 8)
        self.classes = nn.Parameter(torch.randn(3, 8))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)), self.classes) * 30


def inputs() -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(6, 4, dtype=torch.float64)
    return torch.cat([x, 1e-14 * x[:2], 0 * x[:1]])


def traced(head: Head) -> tuple[nn.Module, fx.GraphModule]:
    module = Classifier(head).double().eval()
    return module, fxgrow.trace(module, (inputs()[:5],))


@pytest.mark.parametrize("scheme", ["net2net", "auto"])
@pytest.mark.parametrize("name", HEADS)
def test_copies_leave_cosines_as_they_are_for_long_and_for_short_vectors(name: str, scheme: str) -> None:
    module, gm = traced(HEADS[name])
    wider = fxgrow.widen(gm, "features", factor=3, scheme=scheme)
    again = fxgrow.widen(wider, "features", factor=2, scheme=scheme)
    assert again.get_parameter("features.weight").shape == (48, 4)
    for grown in (wider, again):
        torch.testing.assert_close(grown(inputs()), module(inputs()), rtol=0, atol=SAME)
    assert fxgrow.verify(module, wider).held


def test_a_module_keeps_its_epsilon_as_an_attribute() -> None:
    class Near(Classifier):
        def __init__(self) -> None:
            super().__init__(lambda h, w: h)
            self.near = nn.CosineSimilarity(dim=-1, eps=0.7)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.near(F.relu(self.features(x))[:, None], self.classes)
            return y

    module = Near().double().eval()
    wider = fxgrow.widen(fxgrow.trace(module, (inputs(),)), "features", factor=4)
    assert wider.get_submodule("near").eps == 1.4
    torch.testing.assert_close(wider(inputs()), module(inputs()), rtol=0, atol=SAME)


@pytest.mark.parametrize("scheme", ["r2r", "zero", "mean", "morphism"])
@pytest.mark.parametrize("name", ["unit vectors", "cosine_similarity"])
def test_other_new_units_would_change_them(name: str, scheme: str) -> None:
    _, gm = traced(HEADS[name])
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "features", factor=2, scheme=scheme)
    assert caught.value.kind in (fxgrow.Kind.STATISTIC, fxgrow.Kind.NO_PROOF)


def test_a_plan_is_data_and_names_what_is_written_out() -> None:
    module, gm = traced(HEADS["an epsilon that matters"])
    plan = fxgrow.plan_widen(gm, "features", factor=2)
    assert [opening.node for opening in plan.openings] == ["normalize", "normalize_1"]
    assert "calls replaced by plain operators on the same parameters\n  normalize\n" in str(plan)
    wider = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    torch.testing.assert_close(wider(inputs()), module(inputs()), rtol=0, atol=SAME)
    assert fxgrow.plan_widen(gm, "features", factor=2).openings  # the model itself stays as it was


class Residual(nn.Module):
    """A unit vector beside a residual branch that compares it with the directions of sixteen classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.start, self.end, self.down = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(16, 8)
        self.classes = nn.Parameter(torch.randn(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = F.normalize(self.start(x), dim=-1)
        y: Tensor = self.end(h + self.down(F.silu(F.linear(h, F.normalize(self.classes, dim=-1)))))
        return y


@pytest.mark.parametrize("adapter", ["pad", "conv"])
def test_a_plan_may_edit_the_nodes_of_a_call_that_it_writes_out(adapter: Literal["pad", "conv"]) -> None:
    module = Residual().double().eval()
    gm = fxgrow.trace(module, (inputs()[:5],))
    plan = fxgrow.plan_widen(gm, "start", skip="reshape", adapter=adapter)
    assert plan.openings
    assert {skip.source for skip in plan.skips} == {"normalize_unit"}
    for read in (plan, type(plan).from_json(plan.to_json())):
        wider = fxgrow.apply(read, gm)
        torch.testing.assert_close(wider(inputs()), module(inputs()), rtol=0, atol=SAME)
        assert fxgrow.verify(module, wider).held


def test_a_plan_is_refused_that_edits_a_node_which_no_call_becomes() -> None:
    _, gm = traced(HEADS["an epsilon that matters"])
    plan = fxgrow.plan_widen(gm, "features", factor=2)
    (edit, *others), (opening, *_) = plan.nodes, plan.openings
    damaged = {
        "no such node": replace(plan, nodes=(replace(edit, node="normalize_half"), *others)),
        "cannot be written out": replace(plan, openings=(replace(opening, node="relu"),)),
        "speaks of node elsewhere": replace(plan, openings=(replace(opening, node="elsewhere"),)),
        "is not an argument": replace(plan, nodes=(replace(edit, path=("args", 9), new=3), *others)),
    }
    for said, damage in damaged.items():
        with pytest.raises(fxgrow.UsageError, match=said) as caught:
            fxgrow.apply(damage, gm)
        assert caught.value.kind is fxgrow.Kind.STALE_PLAN


class Cosines(nn.Module):
    """Attention by cosines over packed projections, keys without a bias, as in Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.proj = nn.Linear(6, 24, bias=False), nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.randn(2, 8))
        self.scale = nn.Parameter(torch.rand(2, 1, 1) * 3)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.bias[0], torch.zeros_like(self.bias[0]), self.bias[1]])
        packed = F.linear(x, self.qkv.weight, bias).reshape(x.shape[0], x.shape[1], 3, 2, -1).permute(2, 0, 3, 1, 4)
        q, k, v = packed.unbind(0)
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        attention = (attention * self.scale.clamp(max=math.log(100.0)).exp()).softmax(-1)
        y: Tensor = self.proj((attention @ v).transpose(1, 2).flatten(2))
        return y


@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_attention_by_cosines_grows_in_heads_and_in_their_width(grow: str) -> None:
    module = Cosines().double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    wider = fxgrow.widen(fxgrow.trace(module, (x,)), "qkv", factor=2, grow=grow)  # type: ignore[arg-type]  # one of two
    assert wider.get_parameter("qkv.weight").shape == (48, 6)
    for y in (x, x.new_ones(3, 7, 6)):
        torch.testing.assert_close(wider(y), module(y), rtol=0, atol=SAME)
