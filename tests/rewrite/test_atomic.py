"""`inplace=True` either succeeds or leaves every tensor, attribute and node as it was."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

import fxgrow
from fxgrow.models_zoo import ZOO

from ..untouched import snapshot

WRITER = importlib.import_module("fxgrow.rewrite.apply")
GRAPHS = importlib.import_module("fxgrow.rewrite.edit_graph")
NODES = ["layer1.conv2", "layer2.conv1", "layer3.conv2"]


class Trouble(BaseException):
    """Something that no `except Exception` catches, as Ctrl-C."""


def on_call(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gets into trouble when it is called for the so-and-so-manieth time, after its work is done."""
    calls = 0

    def troubled(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        if calls == count:
            raise Trouble
        return result

    return troubled


class Fragile(dict[str, Any]):
    """A model's metadata that cannot be written to for the first time."""

    armed = True

    def __setitem__(self, key: str, value: Any) -> None:
        if self.armed:
            self.armed = False
            raise Trouble
        super().__setitem__(key, value)


def traced() -> fx.GraphModule:
    """The zoo's resnet."""
    torch.manual_seed(0)
    return fxgrow.trace(ZOO["resnet"].build().eval(), ZOO["resnet"].example_inputs())


POINTS: dict[str, tuple[object, str, int]] = {
    "the first tensor": (WRITER, "_set_tensor", 1),
    "the second tensor": (WRITER, "_set_tensor", 2),
    "the ninth tensor": (WRITER, "_set_tensor", 9),
    "the first draw": (WRITER, "grown", 1),
    "the last draw": (WRITER, "grown", 12),
    "the first adapter": (GRAPHS, "_adapt", 1),
    "the second adapter": (GRAPHS, "_adapt", 2),
    "an adapter's weight": (GRAPHS, "_convolution", 2),
    "the new graph": (WRITER, "edit_graph", 1),
    "lint": (fx.Graph, "lint", 1),
    "recompilation": (fx.GraphModule, "recompile", 1),
}


@pytest.mark.parametrize(
    ("point", "adapter"), [(p, a) for p in POINTS for a in ("pad", "conv") if a == "conv" or "weight" not in p]
)
def test_trouble_at_any_point_leaves_the_model_as_it_was(
    point: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, NODES, skip="reshape", adapter=adapter)  # type: ignore[arg-type]  # one of two
    assert len(plan.skips) >= 2
    before, inputs = snapshot(gm), ZOO["resnet"].example_inputs()
    wanted = gm(*inputs)
    owner, name, count = POINTS[point]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, on_call(count, getattr(owner, name)))
        with pytest.raises(Trouble):
            fxgrow.apply(plan, gm, inplace=True)
    assert different(snapshot(gm), before) == []
    assert torch.equal(gm(*inputs), wanted)
    grown = fxgrow.apply(plan, gm, inplace=True)  # and nothing stands in the way of trying again
    assert grown is gm
    assert snapshot(gm) != before
    torch.testing.assert_close(gm(*inputs), wanted)


def different(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What two snapshots differ in."""
    return [key for key in {**a, **b} if a.get(key) != b.get(key)]


def test_trouble_at_the_very_end_leaves_the_model_as_it_was() -> None:
    gm = traced()
    gm.meta = Fragile(gm.meta)
    before = snapshot(gm)
    with pytest.raises(Trouble):
        fxgrow.widen(gm, node=NODES, skip="reshape", inplace=True)
    assert different(snapshot(gm), before) == []


def test_trouble_with_an_attribute_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, NODES)
    before = snapshot(gm)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "__setattr__", on_call(3, nn.Module.__setattr__), raising=False)
        with pytest.raises(Trouble):
            fxgrow.apply(plan, gm, inplace=True)
    assert different(snapshot(gm), before) == []


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
def test_a_failed_numeric_check_leaves_the_model_as_it_was(inplace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = importlib.import_module("fxgrow.rewrite.new_values")
    gm = traced()
    before = snapshot(gm)
    monkeypatch.setattr(values, "_pair", lambda *_: None)  # halves that are no twins
    with pytest.raises(fxgrow.VerificationFailed) as caught:
        fxgrow.widen(gm, node="layer2.conv1", verify=True, inplace=inplace)
    assert caught.value.kind is fxgrow.Kind.CHECK_FAILED
    assert "the function changed: output differs by" in str(caught.value)
    assert different(snapshot(gm), before) == []


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
def test_a_plan_for_another_model_changes_nothing(inplace: bool) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, NODES)
    fxgrow.apply(plan, gm, inplace=True)
    before = snapshot(gm)
    with pytest.raises(fxgrow.UsageError) as caught:
        fxgrow.apply(plan, gm, inplace=inplace)
    assert caught.value.kind is fxgrow.Kind.STALE_PLAN
    assert "make a new plan" in str(caught.value)
    assert snapshot(gm) == before


def test_inplace_gives_the_model_itself_and_the_same_bits_as_a_copy() -> None:
    gm, inputs = traced(), ZOO["resnet"].example_inputs()
    copied = fxgrow.widen(gm, node=NODES, skip="reshape", seed=5)
    assert copied is not gm
    inplace = fxgrow.widen(gm, node=NODES, skip="reshape", seed=5, inplace=True)
    assert inplace is gm
    assert inplace.code == copied.code
    assert torch.equal(inplace(*inputs), copied(*inputs))
    ours, theirs = inplace.state_dict(), copied.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
