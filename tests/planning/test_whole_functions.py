"""Functions that a trace keeps whole are traced through where a growth has to edit the numbers in them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.analysis.analysis import analyse
from fxgrow.capture.decomposition.function_bodies import Closed, body_of
from fxgrow.errors import FxgrowError, GrowthRefused
from fxgrow.plan_validation.widenings import widened_again
from fxgrow.plans import Plan

SAME = 1e-12


def attention(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor, heads: int) -> Tensor:
    """Its scale is computed from the width of its heads."""
    b, n, _ = x.shape
    qkv = F.linear(x, qkv_w, qkv_b)
    d = qkv.shape[-1] // 3 // heads
    q, k, v = qkv.reshape(b, n, 3, heads, d).permute(2, 0, 3, 1, 4)
    scores = (q / math.sqrt(d)) @ k.transpose(-2, -1)
    return F.linear((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, heads * d), proj_w)


def tied(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor, heads: int) -> Tensor:
    """The width of its heads is computed from its input."""
    b, n, c = x.shape
    q, k, v = F.linear(x, qkv_w, qkv_b).reshape(b, n, 3, heads, c // 2 // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    return F.linear(y.transpose(1, 2).reshape(b, n, -1), proj_w)


class Block(nn.Module):
    def __init__(self, function: Callable[..., Any], *options: Any) -> None:
        super().__init__()
        self.e, self.qkv = nn.Linear(5, 16), nn.Linear(16, 24)
        self.proj, self.out = nn.Linear(8, 16, bias=False), nn.Linear(16, 3)
        self.function, self.options = function, options

    def forward(self, x: Tensor) -> Tensor:
        function = globals().get(self.function.__name__, self.function)  # by name, as `leaf=` finds it
        y = function(torch.relu(self.e(x)), self.qkv.weight, self.qkv.bias, self.proj.weight, *self.options)
        y = y if isinstance(y, Tensor) else y[0] * y[1]
        z: Tensor = self.out(torch.relu(y))
        return z


def traced(function: Callable[..., Any], *options: Any) -> tuple[Block, torch.fx.GraphModule]:
    torch.manual_seed(0)
    model = Block(function, *options).double().eval()
    gm = fxgrow.trace(model, (torch.randn(2, 6, 5).double(),), leaf=function)
    assert [n.name for n in gm.graph.nodes if n.target is function] == [function.__name__]
    return model, gm


def agree(grown: nn.Module, model: nn.Module) -> None:
    for training in (False, True):
        for size in ((2, 6, 5), (1, 3, 5), (4, 17, 5)):
            x = torch.randn(size, dtype=torch.float64)
            want = copy.deepcopy(model).train(training)(x)
            torch.testing.assert_close(grown.train(training)(x), want, rtol=0, atol=SAME)


@pytest.mark.parametrize("function", [attention, tied])
@pytest.mark.parametrize("layer", ["e", "qkv.weight", "proj.weight"])
def test_all_layers_around_attention_of_the_users_grow(function: Callable[..., Any], layer: str) -> None:
    model, gm = traced(function, 2)
    grown = fxgrow.widen(gm, layer, factor=2)
    count = sum(p.numel() for p in gm.parameters())
    assert sum(p.numel() for p in grown.parameters()) > count
    agree(grown, model)


def heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, n, c = q.shape
    q, k, v = (t.view(b, n, 2, c // 2).transpose(1, 2) for t in (q, k, v))
    y: Tensor = ((q @ k.mT * (c // 2) ** -0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(5, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(heads(self.q(x), self.k(x), self.v(x)))
        return y


def test_a_certificate_traces_the_module_as_it_was_traced() -> None:
    torch.manual_seed(0)
    model = Attention().double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 6, 5).double(),), leaf=heads), "k")
    certificate = fxgrow.verify(model, grown)
    assert certificate.unfelt == ("k.bias",), "a softmax does not feel the biases of keys"
    assert certificate, "each entry is what the plan says"
    with torch.no_grad():
        grown.get_parameter("k.bias")[-1] += 1
    assert not fxgrow.verify(model, grown)


def test_inspect_offers_them_and_one_plan_grows_them_all() -> None:
    model, gm = traced(tied, 2)
    report = fxgrow.inspect(gm)
    assert "3 of 4 producers can be widened" in str(report)
    grown = fxgrow.grow(gm, widen=2.0)
    assert grown.get_parameter("qkv.weight").shape == (48, 32)
    agree(grown, model)


def test_the_opening_is_data_of_the_plan_and_is_proved_again() -> None:
    model, gm = traced(attention, 2)
    plan = fxgrow.plan_widen(gm, "qkv.weight", factor=2)
    assert [opening.node for opening in plan.openings] == ["attention"]
    grown = fxgrow.apply(Plan.from_json(plan.to_json()), gm)
    agree(grown, model)
    assert "attention" in {node.name for node in grown.graph.nodes}  # its result keeps the name
    agree(fxgrow.widen(grown, "qkv.weight", factor=2), model)
    with pytest.raises(FxgrowError, match="cannot be decomposed"):
        fxgrow.apply(replace(plan, openings=(replace(plan.openings[0], node="relu"),)), gm)
    with pytest.raises(FxgrowError, match="nowhere is not such a call"):
        fxgrow.apply(replace(plan, openings=(*plan.openings, replace(plan.openings[0], node="nowhere"))), gm)


@torch.fx.wrap
def by_heads(x: Tensor, c: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], 2, c // 2)


@torch.fx.wrap
def outer(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> tuple[Tensor, Tensor]:
    """Another wrapped function is called in it, and it returns two results."""
    h = F.linear(x, qkv_w[:8], qkv_b[:8]) * 8**-0.5
    h = by_heads(h, 8).softmax(-1).flatten(2)
    return F.linear(h, proj_w), torch.sigmoid(h.sum(-1, keepdim=True))


def test_wrapped_functions_within_others_and_several_results() -> None:
    model = Block(lambda *given: outer(*given)).double().eval()
    gm = fxgrow.trace(model, (torch.randn(2, 6, 5).double(),))
    plan = fxgrow.plan_widen(gm, "e", factor=2)
    agree(fxgrow.apply(plan, gm), model)


SCALE = torch.tensor(2.0, dtype=torch.float64)


def branching(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2) if x.shape[1] < 100 else attention(x, qkv_w, qkv_b, proj_w, 4)


def drawing(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2) * (1 + 0 * random.random())


def reading(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2) * SCALE


def kinds(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2) * (1 if type(x) is Tensor else 2)


def gradients(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2) * (2 - 1 * (len(str(torch.is_grad_enabled())) > 0))


def listed(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> list[Tensor]:
    return [attention(x, qkv_w, qkv_b, proj_w, 2), x]


def switched(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    return attention(x, qkv_w, qkv_b, proj_w, 2 if not ELSEWHERE.training else 4)


def swallowing(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    try:
        heads = [2, 2][int(x.shape[1] > 0)]
    except Exception:
        heads = 4
    return attention(x, qkv_w, qkv_b, proj_w, heads)


def once(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    y = attention(x, qkv_w, qkv_b, proj_w, 2)
    return y * (2 if "Proxy" not in type(y).__name__ else 3)


def fooled(x: Tensor, qkv_w: Tensor, qkv_b: Tensor, proj_w: Tensor) -> Tensor:
    """A stand-in has attributes of all names."""
    y = attention(x, qkv_w, qkv_b, proj_w, 2)
    return y * (3 if hasattr(y, "no_such_name") else 2)


ELSEWHERE = nn.Linear(1, 1).eval()
CLOSED: dict[Callable[..., Any], str] = {
    branching: "control flow|a condition",
    reading: "a tensor",
    listed: "a tuple of tensors",
    switched: "mode",
    swallowing: "cannot be read as int",
    once: "class",
    fooled: "for the example inputs it does what its trace does not",
}
UNTRACED: dict[Callable[..., Any], str] = {
    **{function: why for function, why in CLOSED.items() if function is not fooled},
    drawing: "random numbers",
    kinds: "class",
    gradients: "gradients",
}


@pytest.mark.parametrize("function", CLOSED, ids=lambda function: function.__name__)
def test_what_cannot_be_traced_through_is_refused_with_the_reason(function: Callable[..., Any]) -> None:
    _, gm = traced(function)
    with pytest.raises(GrowthRefused, match=f"the function cannot be traced through: .*({CLOSED[function]})"):
        fxgrow.widen(gm, "qkv.weight", factor=2)


@pytest.mark.parametrize("function", UNTRACED, ids=lambda function: function.__name__)
def test_code_is_not_traced_that_may_do_something_else(function: Callable[..., Any]) -> None:
    graph = torch.fx.Graph()
    node = graph.call_function(function, tuple(graph.placeholder(name) for name in "abcd"))
    with pytest.raises(Closed, match=UNTRACED[function]):
        body_of(node)


def test_a_plan_that_opens_what_its_trace_does_not_run_is_not_proved() -> None:
    _, gm = traced(attention, 2)
    plan = fxgrow.plan_widen(gm, "qkv.weight", factor=2)
    _, other = traced(fooled)
    node = next(node for node in other.graph.nodes if node.target is fooled)
    forged = replace(plan, openings=(replace(plan.openings[0], node=node.name),))
    analysis = analyse(other)
    assert "which cannot be traced through" in str(widened_again(forged, other, analysis))
    assert isinstance(widened_again(plan, gm, analyse(gm)), Plan)
