"""Net2Net under skip="reshape": channels that a skip path lacks are copies like those that they are added to."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.functional import adapt_skip
from fxgrow.plans import Leaf

from ..models.scheme import NETS

Adapter = Literal["pad", "conv"]
EXACT = 1e-12
"""Relative, float64: a few hundred times the rounding of these small sums."""
NET = NETS["residual"]
X = NET.input()


def made() -> fx.GraphModule:
    return fxgrow.trace(NET.made().eval(), (X,))


def apart(before: nn.Module, after: nn.Module) -> float:
    with torch.no_grad():
        a, b = before(X), after(X)
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("adapter", ["pad", "conv"])
@pytest.mark.parametrize("by", [1, 3, 4, 9])
def test_the_wide_end_of_a_skip_path_is_filled_with_copies(adapter: Adapter, by: int) -> None:
    before = made()
    plan = fxgrow.plan_widen(before, "last", scheme="net2net", skip="reshape", adapter=adapter, by=by)
    (skip,) = plan.skips
    rows = next(t for t in plan.tensors if t.names[0] == "last.weight").axes[0].layout
    assert isinstance(rows, Leaf)
    assert skip.copies == tuple(enumerate(rows.source, 4))
    assert f"{by} missing channels are copies" in str(plan) or adapter == "conv"
    after = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), before)
    assert apart(before, after) < EXACT
    assert fxgrow.verify(before, after).held
    assert fxgrow.bisect(before, after) is None


@pytest.mark.parametrize("adapter", ["pad", "conv"])
@pytest.mark.parametrize("then", ["net2net", "r2r", "zero", "auto"])
@pytest.mark.parametrize("node", ["last", "writer"])
def test_the_adapter_grows_again_by_any_scheme(adapter: Adapter, then: str, node: str) -> None:
    before = after = made()
    for scheme in ("net2net", then, "net2net"):
        after = fxgrow.widen(after, node, scheme=scheme, skip="reshape", adapter=adapter, by=3)
        assert apart(before, after) < EXACT
    assert sum(n.name.startswith("adapt_skip") for n in after.graph.nodes) == 1


def test_zeros_in_place_of_the_copies_would_change_the_function() -> None:
    before = made()
    after = fxgrow.widen(before, "last", scheme="net2net", skip="reshape")
    node = next(n for n in after.graph.nodes if n.target is adapt_skip)
    node.args = (*node.args[:-1], ())
    after.recompile()
    assert apart(before, after) > 1e-3


def test_copies_are_copied_in_turn() -> None:
    x = torch.arange(3.0).reshape(1, 3)
    wide: Tensor = adapt_skip(x, 1, 3, [], 6, [(3, 2), (4, 3), (5, 0)])
    assert wide.tolist() == [[0.0, 1.0, 2.0, 2.0, 2.0, 0.0]]


def test_a_refusal_does_not_recommend_what_was_asked_for() -> None:
    traced = fxgrow.trace(NETS["tied, layer norm"].made(), (NETS["tied, layer norm"].input(),))
    with pytest.raises(fxgrow.GrowthRefused, match="mixes them") as caught:
        fxgrow.widen(traced, "words", scheme="r2r", skip="reshape")
    assert 'skip="reshape"' not in str(caught.value)
    assert "widen a layer whose channels end elsewhere: " in str(caught.value)
