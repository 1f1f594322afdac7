"""Inputs with more or fewer axes, for which a growth does not keep the function: the grown model refuses them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.errors import Kind, UsageError
from fxgrow.functional import decided

EXACT = 1e-12
Body = Callable[[Tensor], Tensor]


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Features(nn.Module):
    """Two layers of features with something between them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.body = nn.Linear(8, 6), nn.Linear(6, 2), body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.body(self.a(x)))
        return y


class Images(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.body = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1), body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.body(self.a(x)))
        return y


Shapes = list[tuple[int, ...]]
SEQUENCES: Shapes = [(2, 3, 8), (5, 2, 3, 8)]
ONE: Shapes = [(3, 8)]
CASES: dict[str, tuple[type[Any], Body, Shapes, Shapes]] = {
    "mean": (Features, lambda h: h - h.mean(1, keepdim=True), SEQUENCES, ONE),
    "length of a vector": (Features, lambda h: F.normalize(h, dim=1), SEQUENCES, ONE),
    "sums along the first axis": (Features, lambda h: h.cumsum(0), [(3, 8), *SEQUENCES], [(8,)]),
    "two axes fewer": (Features, lambda h: h.cumsum(0), [*SEQUENCES, (3, 8)], [(8,)]),
    "rotation": (Features, lambda h: h.roll(1, 0), [(3, 8), *SEQUENCES], [(8,)]),
    "softmax": (Features, lambda h: h.softmax(1), SEQUENCES, ONE),
    "a size from the front": (Features, lambda h: h / h.shape[1], SEQUENCES, ONE),
    "more axes": (Features, lambda h: h - h.mean(1, keepdim=True), ONE, [*SEQUENCES, (2, 2, 2, 3, 8)]),
    "shuffled channels": (Images, lambda h: F.channel_shuffle(h, 2), [(2, 3, 6, 6)], [(3, 6, 6)]),
    "pieces of rows": (Features, lambda h: torch.cat([-h[:, :1], h[:, 1:]], 1), [*SEQUENCES, *ONE], []),
    "shuffled rows": (Images, lambda h: F.channel_shuffle(h, 2), [(3, 6, 6)], [(2, 3, 6, 6)]),
    "from the end": (Features, lambda h: h - h.mean(-2, keepdim=True), [*SEQUENCES, (3, 8)], []),
    "channels last": (Features, lambda h: h.transpose(0, 1).relu().transpose(0, 1), [*SEQUENCES, (3, 8)], []),
    "images": (Images, lambda h: h - h.mean((-1, -2), keepdim=True), [(2, 3, 6, 6), (3, 6, 6)], []),
}


def axis_guards(gm: fx.GraphModule) -> list[fx.Node]:
    return [node for node in gm.graph.nodes if node.target is decided and node.args[1] == "axes"]


@pytest.mark.parametrize("name", CASES)
def test_a_grown_model_computes_the_same_or_refuses_the_number_of_axes(name: str) -> None:
    build, body, taken, refused = CASES[name]
    module = build(body).double().eval()
    gm = fxgrow.trace(module, (numbers(*taken[0]),))
    plan = fxgrow.plan_widen(gm, "a", factor=2)
    once = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    again = fxgrow.widen(once, "a", factor=2)
    for grown in (once, again):
        assert bool(axis_guards(grown)) == bool(refused)
        for shape in taken:
            torch.testing.assert_close(grown(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)
        for shape in refused:
            torch.testing.assert_close(gm(numbers(*shape)), module(numbers(*shape)), rtol=0, atol=EXACT)
            with pytest.raises(UsageError, match="the growth does not keep the function for inputs for which x has"):
                grown(numbers(*shape))
    assert len(axis_guards(once)) == len(axis_guards(again)), "the same guard stands twice"


def test_a_trace_of_such_inputs_grows() -> None:
    """What the error recommends."""
    module = Features(lambda h: h - h.mean(1, keepdim=True)).double().eval()
    grown = fxgrow.widen(fxgrow.trace(module, (numbers(3, 8),)), "a")
    torch.testing.assert_close(grown(numbers(3, 8)), module(numbers(3, 8)), rtol=0, atol=EXACT)


def test_plan_and_certificate_name_the_inputs_and_the_node() -> None:
    module = Features(lambda h: h - h.mean(1, keepdim=True)).double().eval()
    gm = fxgrow.trace(module, (numbers(2, 3, 8),))
    plan = fxgrow.plan_widen(gm, "a", factor=2)
    assert "x: inputs for which it has 2 axes, instead of 3, raise FXG010" in str(plan)
    assert re.search("raises FXG010 for inputs for which x has 2 axes: mean: .*even", str(plan))
    grown = fxgrow.apply(plan, gm)
    certificate = fxgrow.verify(module, grown)
    assert certificate.held
    assert "decided by a growth, and guarded: inputs for which x has 2 axes raise an error" in str(certificate)
    assert fxgrow.verify(gm, grown).held
    assert fxgrow.bisect(gm, grown, (numbers(2, 3, 8),)) is None
    found = fxgrow.bisect(gm, shifted(grown), (numbers(2, 3, 8),))
    assert found is not None
    assert found.node.node == "b"


def shifted(gm: fx.GraphModule) -> fx.GraphModule:
    with torch.no_grad():
        gm.get_parameter("b.bias").add_(1)
    return gm


class Two(nn.Module):
    """Features of a sequence, and an offset that may have fewer axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, offset: Tensor, x: list[Tensor]) -> Tensor:
        h = self.a(x[0])
        y: Tensor = self.b(h - h.mean(1, keepdim=True)) + offset
        return y


def test_the_input_that_is_read_is_guarded() -> None:
    module = Two().double().eval()
    gm = fxgrow.trace(module, (numbers(2), [numbers(2, 3, 8)]))
    grown = fxgrow.widen(gm, "a", factor=2)
    for offset in (numbers(2), numbers(3, 2)):
        x = [numbers(2, 3, 8)]
        torch.testing.assert_close(grown(offset, x), module(offset, x), rtol=0, atol=EXACT)
    with pytest.raises(UsageError, match="has 2 axes"):
        grown(numbers(2), [numbers(3, 8)])


def edited(change: Callable[[dict[str, Any]], None]) -> str:
    """A plan with a guard, in which that is changed."""
    gm = fxgrow.trace(Features(lambda h: h.cumsum(0)).double().eval(), (numbers(3, 8),))
    data = json.loads(fxgrow.plan_widen(gm, "a", factor=2).to_json())
    change(next(edit for edit in data["plan"]["nodes"] if edit["path"] == ["axes"]))
    return json.dumps(data)


@pytest.mark.parametrize("new", [[], [[2, 2]], [[1, 3]], [[1, 1], [1, 1]], [[70, 70]], [["1", 1]], [1], 1, [[0, None]]])
def test_what_is_no_number_of_axes_is_not_written_into_a_graph(new: object) -> None:
    gm = fxgrow.trace(Features(lambda h: h.cumsum(0)).double().eval(), (numbers(3, 8),))
    plan = fxgrow.Plan.from_json(edited(lambda edit: edit.update(new=new)))
    with pytest.raises(UsageError) as caught:
        fxgrow.apply(plan, gm)
    assert caught.value.kind is Kind.STALE_PLAN


def test_a_plan_without_its_guard_is_not_applied() -> None:
    gm = fxgrow.trace(Features(lambda h: h.cumsum(0)).double().eval(), (numbers(3, 8),))
    data = json.loads(fxgrow.plan_widen(gm, "a", factor=2).to_json())
    data["plan"]["nodes"] = []
    with pytest.raises(UsageError) as caught:
        fxgrow.apply(fxgrow.Plan.from_json(json.dumps(data)), gm)
    assert caught.value.kind is Kind.STALE_PLAN
