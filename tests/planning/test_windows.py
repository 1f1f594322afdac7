"""Attention within shifted windows, written out: over images and over videos, by products and by cosines."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

import fxgrow
from fxgrow.analysis.analysis import analyse
from fxgrow.capture.decomposition.inline_calls import decomposition_of, kind_of
from fxgrow.planning.decompose_attention import decomposed

SAME = 1e-12
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "images": (lambda: ShiftedWindowAttention(16, [4, 4], [2, 2], 2), (1, 8, 8, 16), (2, 6, 9, 16)),
    "images, by cosines": (lambda: ShiftedWindowAttentionV2(16, [4, 4], [2, 2], 2), (1, 8, 8, 16), (2, 6, 9, 16)),
    "videos": (lambda: ShiftedWindowAttention3d(16, [2, 4, 4], [1, 2, 2], 2), (1, 4, 8, 8, 16), (2, 5, 6, 9, 16)),
    "videos of one window": (
        lambda: ShiftedWindowAttention3d(16, [2, 4, 4], [1, 2, 2], 2),
        (1, 2, 4, 4, 16),
        (2, 5, 6, 9, 16),
    ),
}


class Attending(nn.Module):
    """Attention between two layers."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.before, self.attention, self.after = nn.Linear(16, 16), attention, nn.Linear(16, 3)
        for parameter in attention.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.attention(self.before(x)))
        return y


@cache
def traced(name: str) -> tuple[nn.Module, fx.GraphModule, list[Tensor]]:
    torch.manual_seed(0)
    kind, *sizes = KINDS[name]
    module = Attending(kind()).double().eval()
    inputs = [torch.randn(size, dtype=torch.float64) for size in sizes]
    return module, fxgrow.trace(module, (inputs[0],)), inputs


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("layer", "grow"),
    [
        ("before", "channels"),
        ("attention.qkv", "channels"),
        ("attention.qkv", "groups"),
        ("attention.proj", "channels"),
    ],
)
def test_heads_their_width_and_the_stream_grow(name: str, layer: str, grow: Literal["channels", "groups"]) -> None:
    module, gm, inputs = traced(name)
    grown = fxgrow.widen(gm, f"{layer}.weight", factor=2, grow=grow)
    assert grown.get_parameter(f"{layer}.weight").shape[0] == 2 * gm.get_parameter(f"{layer}.weight").shape[0]
    for x in inputs:
        torch.testing.assert_close(grown(x), module(x), rtol=0, atol=SAME)


def test_the_lengths_that_cosines_are_divided_by_are_numbers_of_the_plan() -> None:
    module, gm, inputs = traced("images, by cosines")
    plan = fxgrow.plan_widen(gm, "attention.qkv.weight", factor=4, scheme="net2net")
    norms = {edit.path: edit.new for edit in plan.nodes if "norms" in edit.path}
    assert norms == {("kwargs", "norms", 0): 0.5, ("kwargs", "norms", 1): 2.0}
    grown = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    again = fxgrow.widen(grown, "attention.qkv.weight", factor=4, scheme="net2net")
    for x in inputs:
        torch.testing.assert_close(again(x), module(x), rtol=0, atol=SAME)


@pytest.mark.parametrize("training", [False, True])
def test_the_model_in_which_calls_are_written_out_is_in_the_mode_of_the_model(training: bool) -> None:
    image = torch.zeros(1, 8, 8, 16)
    gm = fxgrow.trace(Attending(ShiftedWindowAttentionV2(16, [4, 4], [2, 2], 2, dropout=0.1)).train(training), (image,))
    gm.get_submodule("attention.cpb_mlp").train(not training)
    analysis = analyse(gm, (image,))
    nodes = [node for node in gm.graph.nodes if kind_of(gm, node)]
    twin, found = decomposed(gm, analysis, [decomposition_of(gm, node, (analysis.program,)) for node in nodes])
    assert len(nodes) == 1
    assert found.program.training is training
    before = {path: module.training for path, module in gm.named_modules()}
    assert {path: module.training for path, module in twin.named_modules()}.items() <= before.items()
    assert {"fxgrow_compared"} < twin.meta.keys()


def test_a_clone_of_a_block_whose_inner_units_follow_its_input_says_what_helps() -> None:
    model = SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=5).eval()
    gm = fxgrow.trace(model, (torch.randn(1, 3, 32, 32),))
    with pytest.raises(fxgrow.GrowthRefused, match="inner units whose number its code computes from them") as caught:
        fxgrow.deepen(gm, after="features.1", block="clone")
    assert 'scheme="zero"' in str(caught.value.refusal.hint)
    deeper = fxgrow.deepen(gm, after="features.1", block="clone", scheme="zero")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(deeper(x), model(x))


@pytest.mark.parametrize("scheme", ["auto", "zero", "mean"])
def test_what_is_written_out_before_a_proof_is_what_would_be_after_it(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned() -> tuple[set[str], set[tuple[int, int]]]:
        gm = fxgrow.trace(model, (torch.randn(2, 3, 16, 16),))
        plan = fxgrow.plan_grow(gm, widen=1.25, scheme=scheme)
        return {opening.node for opening in plan.openings}, {(growth.old, growth.new) for growth in plan.growths}

    model = SwinTransformer([2, 2], 12, [1, 1], [3, 3], [4, 4], num_classes=3, block=SwinTransformerBlockV2).eval()
    early = planned()
    monkeypatch.setattr(fxgrow.passes.widen, "with_other_heads", lambda *_: [])
    assert planned() == early
