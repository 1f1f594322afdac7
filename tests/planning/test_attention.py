"""Attention in all its forms grows in heads, in their width and in its stream, by every scheme that can."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import swin_transformer

import fxgrow
from fxgrow.models_zoo import ZOO
from fxgrow.passes.widen import Grow

from ..models.attention import HEADS, TOKENS, WIDTH, Cross, Forward, Functional, Module, Packed, shaken

EXACT = 1e-12
"""Relative, float64: a few hundred times the rounding of these small sums."""
SCHEMES = ("auto", "r2r", "net2net", "morphism", "zero", "mean")
RANDOM = torch.Generator().manual_seed(1)
VECTORS = torch.randn(2, TOKENS, 6, generator=RANDOM, dtype=torch.float64)
NAMES = torch.randint(0, 11, (2, TOKENS), generator=RANDOM)


def change(model: nn.Module, grown: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference of outputs, relative to the largest output; in both modes."""
    worst = 0.0
    for training in (False, True):
        with torch.no_grad():
            before, after = model.train(training)(*inputs), grown.train(training)(*inputs)
        worst = max(worst, float((before - after).abs().max() / before.abs().max()))
    return worst


def widened(
    model: nn.Module, inputs: tuple[Tensor, ...], node: str, scheme: str = "auto", grow: Grow = "channels"
) -> float:
    traced = fxgrow.trace(model, inputs)
    return change(model, fxgrow.widen(traced, node, scheme=scheme, grow=grow), inputs)


@pytest.mark.parametrize("scheme", ["auto", "r2r", "net2net", "zero"])
@pytest.mark.parametrize("grow", ["channels", "groups"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_heads_of_a_module_grow(scheme: str, grow: Grow, masked: bool, batch_first: bool) -> None:
    model = shaken(Module(batch_first=batch_first, masked=masked))
    x = VECTORS if batch_first else VECTORS.transpose(0, 1).contiguous()
    assert widened(model, (x,), "attend.in_proj_weight", scheme, grow) < EXACT


@pytest.mark.parametrize("node", ["enter", "attend.in_proj_weight"])
def test_a_module_with_dropout_is_written_out_with_a_dropout_that_follows_training(node: str) -> None:
    model = shaken(Module(dropout=0.5))
    traced = fxgrow.trace(model, (VECTORS,))
    grown = fxgrow.widen(traced, node)
    with torch.no_grad():
        assert float((model(VECTORS) - grown(VECTORS)).abs().max()) < EXACT
        assert not torch.equal(grown.train()(VECTORS), grown(VECTORS))


def test_a_stream_grows_around_a_module_which_the_plan_says_is_written_out() -> None:
    model = shaken(Module())
    plan = fxgrow.plan_widen(fxgrow.trace(model, (VECTORS,)), "enter", factor=1.5)
    assert [o.node for o in plan.openings] == ["attend"]
    assert "calls replaced by plain operators" in str(plan)
    assert fxgrow.Plan.from_json(plan.to_json()) == plan


def test_parameter_names_stay_and_the_result_grows_again() -> None:
    model = shaken(Module())
    traced = fxgrow.trace(model, (VECTORS,))
    grown = fxgrow.widen(traced, "attend.in_proj_weight", grow="groups")
    again = fxgrow.widen(fxgrow.widen(grown, "enter", factor=1.5), "attend.in_proj_weight")
    assert list(again.state_dict()) == list(model.state_dict())
    assert change(model, again, (VECTORS,)) < EXACT
    assert copy.deepcopy(again)(VECTORS).equal(again(VECTORS))


def test_a_plan_that_writes_attention_out_names_tied_weights_by_all_their_names() -> None:
    model = shaken(Module())
    twin = nn.Linear(1, 1)
    twin.weight = model.get_parameter("enter.weight")
    model.add_module("twin", twin)  # no part of the forward pass
    plan = fxgrow.plan_widen(fxgrow.trace(model, (VECTORS,)), "enter", factor=1.5)
    assert plan.openings
    assert ("enter.weight", "twin.weight") in [edit.names for edit in plan.tensors]


def test_growth_in_place_is_undone_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = fxgrow.trace(shaken(Module()), (VECTORS,))
    before, code = {k: t.clone() for k, t in traced.state_dict().items()}, traced.code

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("torch.fx.Graph.lint", fail)
    with pytest.raises(MemoryError):
        fxgrow.widen(traced, "attend.in_proj_weight", inplace=True)
    assert traced.code == code
    assert all(torch.equal(before[k], t) for k, t in traced.state_dict().items())


@pytest.mark.parametrize("grow", ["channels", "groups"])
@pytest.mark.parametrize("node", ["attend.q_proj_weight", "attend.v_proj_weight"])
def test_cross_attention_with_widths_of_its_own_grows(node: str, grow: Grow) -> None:
    inputs = (VECTORS, torch.randn(2, 3, 4, generator=RANDOM, dtype=torch.float64))
    assert widened(shaken(Cross()), inputs, node, grow=grow) < EXACT


@pytest.mark.parametrize("node", ["packed", "enter"])
@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_attention_as_torch_has_it_as_a_function_grows(node: str, grow: Grow) -> None:
    assert widened(shaken(Forward()), (VECTORS,), node, grow=grow) < EXACT


def test_a_true_hint_that_a_mask_is_causal_is_kept() -> None:  # what a false one does, torch leaves open
    class Hinted(Module):
        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            y, _ = self.attend(x, x, x, need_weights=False, attn_mask=self.causal, is_causal=True)
            out: Tensor = self.leave(x + y)
            return out

    assert widened(shaken(Hinted()), (VECTORS,), "attend.in_proj_weight") < EXACT


def test_a_mask_for_each_head_is_an_input_of_all_heads() -> None:
    class Masked(Module):
        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            y, _ = self.attend(x, x, x, need_weights=False, attn_mask=self.causal.expand(2 * HEADS, -1, -1))
            out: Tensor = self.leave(x + y)
            return out

    assert widened(shaken(Masked()), (VECTORS,), "attend.in_proj_weight") < EXACT


@pytest.mark.parametrize("scheme", SCHEMES)
def test_new_features_of_rotated_heads_are_rotated(scheme: str) -> None:
    gpt = ZOO["gpt"]
    traced = fxgrow.trace(gpt.build().double().eval(), gpt.example_inputs())
    grown = fxgrow.widen(traced, "blocks.0.attention.q", scheme=scheme, verify=True)
    cos, sin = grown.get_buffer("cos"), grown.get_buffer("sin")
    assert cos.shape[1] == 2 * traced.get_buffer("cos").shape[1]
    assert torch.allclose(cos**2 + sin**2, torch.ones_like(cos), atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_packed_queries_keys_and_values_grow(scheme: str, grow: Grow) -> None:
    assert widened(shaken(Packed()), (NAMES,), "qkv", scheme, grow) < EXACT


def test_new_head_width_gives_keys_another_sign_than_queries_and_values() -> None:
    plan = fxgrow.plan_widen(fxgrow.trace(shaken(Packed()), (NAMES,)), "qkv", scheme="r2r")
    states = {t.names[0]: t.states for t in plan.tensors}
    assert sorted(states["qkv.weight"][:2]) == ["even", "odd"]
    assert states["qkv.weight"][2] == "even"
    assert states["project.weight"] == ("odd",)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("grow", ["channels", "groups"])
@pytest.mark.parametrize("node", ["q", "k", "v"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_attention_as_one_operator_grows_and_its_default_scale_is_pinned(
    scheme: str, node: str, grow: Grow, grouped: bool
) -> None:
    assert widened(shaken(Functional(grouped=grouped)), (NAMES,), node, scheme, grow) < EXACT


STREAMS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[str, ...]]]] = {
    "layer norm": (Packed, {"double": ("auto", "mean", "net2net"), "half more": ("auto", "mean")}),
    "tied": (lambda: Packed(tied=True), {"double": ("auto", "mean", "net2net"), "half more": ("auto", "mean")}),
    "rms norm": (
        lambda: Packed(nn.RMSNorm),
        {"double": ("auto", "zero", "mean", "morphism", "net2net"), "half more": ("auto", "zero")},
    ),
    "tied, rms norm": (
        lambda: Packed(nn.RMSNorm, tied=True),
        {"double": ("auto", "zero", "net2net"), "half more": ("auto", "zero")},
    ),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("much", ["double", "half more"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_residual_stream_grows_through_its_norms(stream: str, much: str, scheme: str) -> None:
    build, able = STREAMS[stream]
    model = shaken(build())
    traced = fxgrow.trace(model, (NAMES,))
    factor = 2.0 if much == "double" else 1.5
    if scheme in (*able[much], "auto") or (scheme == "mean" and "zero" in able[much]):
        assert change(model, fxgrow.widen(traced, "table", scheme=scheme, factor=factor), (NAMES,)) < EXACT
    elif scheme not in ("morphism", "zero") or "rms" not in stream:
        with pytest.raises(fxgrow.GrowthRefused, match="normalisation that mixes them"):
            fxgrow.widen(traced, "table", scheme=scheme, factor=factor)


def test_a_stream_that_only_copies_can_widen_names_the_widths() -> None:
    traced = fxgrow.trace(shaken(Packed()), (NAMES,))
    with pytest.raises(fxgrow.GrowthRefused, match="two or three times the width"):
        fxgrow.widen(traced, "table", scheme="net2net", factor=1.5)


def test_a_whole_transformer_is_traced_through() -> None:
    model = shaken(nn.Transformer(WIDTH, HEADS, 1, 1, 16, dropout=0.0, batch_first=True))
    inputs = tuple(torch.randn(2, n, WIDTH, generator=RANDOM, dtype=torch.float64) for n in (4, 3))
    traced = fxgrow.trace(model, inputs)
    with torch.no_grad():
        assert float((model(*inputs) - traced(*inputs)).abs().max()) < EXACT
    for node in ("encoder.layers.0.self_attn.in_proj_weight", "decoder.layers.0.multihead_attn.in_proj_weight",
                 "decoder.layers.0.linear1"):  # fmt: skip
        for grow in ("channels", "groups"):
            traced = fxgrow.widen(traced, node, grow=grow)
    assert change(model, traced, inputs) < EXACT
    assert traced.state_dict().keys() == model.state_dict().keys()
    refused = [s for s in fxgrow.inspect(traced, inputs).survey.sites if s.refusal is not None]
    assert {s.refusal.kind for s in refused if s.refusal} == {fxgrow.Kind.INPUT}  # the streams are its interface


def swin(version: int) -> nn.Module:
    parts = {
        1: {"block": swin_transformer.SwinTransformerBlock, "downsample_layer": swin_transformer.PatchMerging},
        2: {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2},
    }
    model: nn.Module = swin_transformer.SwinTransformer(
        [4, 4], 12, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5, **parts[version]
    )
    return shaken(model)


@pytest.mark.parametrize("scheme", ["auto", "r2r", "net2net", "zero"])
@pytest.mark.parametrize("version", [1, 2])
def test_heads_of_shifted_windows_grow(version: int, scheme: str) -> None:
    inputs = (torch.randn(1, 3, 36, 40, generator=RANDOM, dtype=torch.float64),)
    assert widened(swin(version), inputs, "features.1.1.attn.qkv.weight", scheme, "groups") < EXACT


@pytest.mark.parametrize("version", [1, 2])
def test_the_stream_of_swin_grows_by_copies(version: int) -> None:
    inputs = (torch.randn(1, 3, 32, 32, generator=RANDOM, dtype=torch.float64),)
    assert widened(swin(version), inputs, "features.0.0") < EXACT


def test_the_width_of_a_window_head_grows_unless_its_queries_are_normalised() -> None:
    inputs = (torch.randn(1, 3, 32, 32, generator=RANDOM, dtype=torch.float64),)
    assert widened(swin(1), inputs, "features.1.1.attn.qkv.weight") < EXACT
