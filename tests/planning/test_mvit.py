"""MViT: relative positions added in place through a view, pooled heads, norms over the width of a head."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, fx

import fxgrow
from fxgrow import Kind
from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from tests.oracles.agreement import compare

from ..models.library import small_mvit

SAME = 1e-12
"""Relative difference in float64 of two models that compute the same: some hundred roundings."""
CLIP = torch.linspace(0, 500, 2 * 3 * 4 * 16 * 16, dtype=torch.float64).sin().reshape(2, 3, 4, 16, 16)


@cache
def small(*, first: bool = False) -> fx.GraphModule:
    """A small MViT in float64, of the second version or the first, with no parameter that is zero or one.

    Of its last block only the class token is read, which has no relative positions, so tests look at the one before.
    """
    torch.manual_seed(0)
    model = small_mvit(first=first).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (parameter.dim() == 1))
    return fxgrow.trace(model.eval(), (CLIP,))


def output(gm: fx.GraphModule) -> Tensor:
    with torch.no_grad():
        y: Tensor = gm(CLIP)
        return y


def difference(before: fx.GraphModule, after: fx.GraphModule) -> float:
    was = output(before)
    return float((output(after) - was).abs().max() / was.abs().max())


@pytest.mark.parametrize("first", [False, True])
def test_everything_grows_but_the_classes(first: bool) -> None:
    gm = small(first=first)
    found = fxgrow.inspect(gm)
    assert [(site.path, site.refusal.kind) for site in found.refused if site.refusal] == [("head.1", Kind.OUTPUT)]
    for site in found.widenable:
        assert difference(gm, fxgrow.widen(gm, site.path)) < SAME, site.path


@pytest.mark.parametrize("scheme", ["r2r", "zero", "mean", "net2net"])
@pytest.mark.parametrize("factor", [1.5, 2])
def test_heads_grow_by_every_scheme(scheme: str, factor: float) -> None:
    gm = small()
    wider = fxgrow.widen(gm, "blocks.1.attn.qkv", factor=factor, grow="groups", scheme=scheme)
    assert wider.get_parameter("blocks.1.attn.qkv.weight").shape == (48 * factor, 16)
    assert difference(gm, wider) < SAME


def test_the_width_of_heads_grows_with_all_that_reads_it() -> None:
    gm = small()
    wider = fxgrow.widen(gm, "blocks.1.attn.qkv")
    grown = {name: tuple(p.shape) for name, p in wider.named_parameters() if p.shape != gm.get_parameter(name).shape}
    assert grown["blocks.1.attn.rel_pos_h"] == (gm.get_parameter("blocks.1.attn.rel_pos_h").shape[0], 16)
    assert grown["blocks.1.attn.pool_k.pool.weight"] == (16, 1, 3, 3, 3)
    assert grown["blocks.1.attn.pool_q.norm_act.0.weight"] == (16,)
    assert grown["blocks.1.attn.project.0.weight"] == (16, 32)


def test_relative_positions_matter_here() -> None:
    gm = small()
    before = output(gm)
    positions = gm.get_parameter("blocks.1.attn.rel_pos_w")
    was = positions.detach().clone()
    with torch.no_grad():
        positions.zero_()
        after = output(gm)
        positions.copy_(was)
    assert float((after - before).abs().max() / before.abs().max()) > 1e3 * SAME


def test_half_more_width_of_heads_is_refused_at_the_norm() -> None:
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(small(), "blocks.1.attn.qkv", factor=1.5)
    assert caught.value.kind is Kind.NORM


def test_the_axes_agree_with_the_orbits() -> None:
    found = compare(lower(Snapshot(small()), (CLIP,)))
    assert found.disagreements == ()
    assert found.unknown == ()
