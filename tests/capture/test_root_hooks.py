"""Forward hooks, and a `forward` on the instance, that a traced model or a layer of it gets after the trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import FxgrowError, Kind, Plan

X = torch.randn(5, 8, dtype=torch.float64)
SCALE = torch.rand(4, dtype=torch.float64)
Register = Callable[[fx.GraphModule], object]


class Net(nn.Module):
    """A hidden layer, a norm and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.n(self.a(x)).relu())
        return y


def traced() -> fx.GraphModule:
    return fxgrow.trace(Net().eval(), (X,))


VERBS: dict[str, Callable[[fx.GraphModule, Plan], Any]] = {
    "widen": lambda gm, _: fxgrow.widen(gm, "a"),
    "widen in place": lambda gm, _: fxgrow.widen(gm, "a", inplace=True),
    "apply": lambda gm, plan: fxgrow.apply(plan, gm),
    "apply from text": lambda gm, plan: fxgrow.apply(Plan.from_json(plan.to_json()), gm),
    "grow": lambda gm, _: fxgrow.grow(gm, widen={"a": 2.0}, deepen="n"),
}
DEEPEN = {"deepen": lambda gm, _: fxgrow.deepen(gm, "n")}
HARMLESS: dict[str, Register] = {
    "a factor": lambda gm: gm.register_forward_hook(lambda m, args, out: out * 2),
    "a constant": lambda gm: gm.register_forward_hook(lambda m, args, out: out * SCALE),
    "by keyword": lambda gm: gm.register_forward_hook(lambda m, args, kw, out: out + args[0].sum(), with_kwargs=True),
    "something else returned": lambda gm: gm.register_forward_hook(lambda m, args, out: {"y": out}),
    "inputs": lambda gm: gm.register_forward_pre_hook(lambda m, args: (args[0] * 3,)),
    "noted only": lambda gm: gm.register_forward_hook(lambda m, args, out: None),
    "the mode": lambda gm: gm.register_forward_hook(lambda m, args, out: out.tanh() if m.training else out),
}
OF_WIDTHS: dict[str, Register] = {
    "the weight": lambda gm: gm.register_forward_hook(lambda m, _, out: out * m.get_submodule("a").weight.sum()),
    "the width": lambda gm: gm.register_forward_hook(lambda m, _, out: out * m.get_submodule("a").out_features),
    "a condition": lambda gm: gm.register_forward_hook(
        lambda m, _, out: out * 2 if m.get_submodule("a").out_features > 20 else out
    ),
    "a count": lambda gm: gm.register_forward_hook(lambda m, _, out: out * sum(p.numel() for p in m.parameters())),
    "in training": lambda gm: gm.register_forward_hook(
        lambda m, _, out: out * m.get_submodule("a").out_features if m.training else out
    ),
    "with the batch": lambda gm: gm.register_forward_hook(
        lambda m, _, out: out * m.get_submodule("a").out_features if len(out) > len(X) else out
    ),
    "inputs": lambda gm: gm.register_forward_pre_hook(lambda m, args: (args[0] * m.get_submodule("a").out_features,)),
    "inputs of another shape": lambda gm: gm.register_forward_pre_hook(lambda m, args: (args[0][:, None],)),
    "by a name": lambda gm: gm.register_forward_hook(lambda m, _, out: out * gm.get_submodule("a").out_features),
    "by a partial function": lambda gm: gm.register_forward_hook(
        partial(lambda layer, m, _, out: out * layer.out_features, gm.get_submodule("a"))
    ),
}


def result(model: nn.Module) -> Tensor:
    out: Any = model(X)
    y: Tensor = out["y"] if isinstance(out, dict) else out
    return y


@pytest.mark.parametrize("verb", [*VERBS, *DEEPEN])
@pytest.mark.parametrize("hook", HARMLESS)
def test_hooks_of_the_model_itself_that_look_at_no_width_are_carried_and_run(hook: str, verb: str) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, "a")
    HARMLESS[hook](gm)
    wanted = result(gm)
    before = fxgrow.trace(Net().eval(), (X,))
    HARMLESS[hook](before)
    every: dict[str, Any] = {**VERBS, **DEEPEN}
    grown = every[verb](gm, plan)
    torch.testing.assert_close(result(grown), wanted, rtol=1e-9, atol=1e-11)
    if verb == "widen":
        assert fxgrow.verify(before, grown)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("hook", OF_WIDTHS)
def test_hooks_of_the_model_itself_that_look_at_a_width_are_refused(hook: str, verb: str) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, "a")
    OF_WIDTHS[hook](gm)
    with pytest.raises(FxgrowError, match=r"forward(-pre)? hook of the (traced )?model itself") as caught:
        VERBS[verb](gm, plan)
    assert caught.value.kind in (Kind.UNSUPPORTED_MODEL, Kind.STALE_PLAN)


def test_what_a_hook_of_the_model_itself_computes_with_is_not_growable() -> None:
    gm = traced()
    OF_WIDTHS["the weight"](gm)
    [site] = [site for site in fxgrow.inspect(gm).survey.sites if site.path == "a"]
    assert site.refusal is not None
    assert "a forward hook of the model itself computes with a.weight" in site.refusal.what
    assert "remove the hook, grow, and register it on the grown model" in site.refusal.hint


def test_a_deepening_that_may_change_what_a_hook_computes_with_is_refused() -> None:
    gm = traced()
    gm.register_forward_hook(lambda m, args, out: out + m.get_submodule("b").bias)
    torch.testing.assert_close(fxgrow.widen(gm, "a")(X), gm(X))
    with pytest.raises(fxgrow.GrowthRefused, match=r"computes with b\.bias, which the growth may change"):
        fxgrow.deepen(gm, "n")


def test_the_way_out_of_a_hook_works() -> None:
    gm = traced()
    hook = gm.register_forward_hook(lambda m, _, out: out * m.get_submodule("a").out_features)
    with pytest.raises(fxgrow.GrowthRefused, match="remove the hook, grow, and register it"):
        fxgrow.widen(gm, "a")
    hook.remove()
    torch.testing.assert_close(fxgrow.widen(gm, "a")(X), gm(X))


def test_a_certificate_compares_what_hooks_of_the_model_itself_return() -> None:
    before, after = traced(), traced()
    assert fxgrow.verify(before, after)
    after.register_forward_hook(lambda m, args, out: out * 2)
    assert not fxgrow.verify(before, after)


def root(gm: fx.GraphModule) -> None:
    gm.forward = lambda x: x * 2


def layer(gm: fx.GraphModule) -> None:
    a: Any = gm.get_submodule("a")
    a.forward = lambda x: F.linear(x, a.weight, a.bias) ** 2


FURTHER: dict[str, Callable[[fx.GraphModule, Plan], Any]] = {
    "plan_widen": lambda gm, _: fxgrow.plan_widen(gm, "b"),
    "plan_deepen": lambda gm, _: fxgrow.plan_deepen(gm, "n"),
    "plan_grow": lambda gm, _: fxgrow.plan_grow(gm, widen=2),
    "inspect": lambda gm, _: fxgrow.inspect(gm),
    "verify": lambda gm, _: fxgrow.verify(gm, traced()),
    "verify the second": lambda gm, _: fxgrow.verify(traced(), gm, example_inputs=(X,)),
    "bisect": lambda gm, _: fxgrow.bisect(traced(), gm, (X,)),
}


@pytest.mark.parametrize("verb", [*VERBS, *DEEPEN, *FURTHER])
@pytest.mark.parametrize("replace", [root, layer])
def test_a_forward_that_was_replaced_on_the_instance_is_refused_by_all_verbs(
    replace: Callable[[fx.GraphModule], None], verb: str
) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, "a")
    replace(gm)
    with pytest.raises(fxgrow.UsageError, match="has been replaced on the instance") as caught:
        {**VERBS, **DEEPEN, **FURTHER}[verb](gm, plan)
    assert caught.value.kind is Kind.UNSUPPORTED_MODEL


@pytest.mark.parametrize("replace", [root, layer])
def test_without_it_an_earlier_plan_fits_again(replace: Callable[[fx.GraphModule], None]) -> None:
    gm = traced()
    plan = fxgrow.plan_widen(gm, "a")
    replace(gm)
    del (gm if replace is root else gm.get_submodule("a")).forward
    torch.testing.assert_close(fxgrow.apply(plan, gm)(X), gm(X))
