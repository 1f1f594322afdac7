"""Code that fx keeps whole: what it does when its input is wider, and when what is known of it is out of date."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.rules import RULES
from fxgrow.rules.pointwise import Unary

Function = Callable[[Tensor], Any]


def between(function: Function, channels: int = 8) -> fx.GraphModule:
    """Two layers with a call of a function between them that fx does not look into."""
    torch.manual_seed(0)
    root = nn.ModuleDict({"a": nn.Linear(5, channels), "b": nn.Linear(channels, 3)}).double()
    graph = fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(function, (graph.call_module("a", (x,)),))
    graph.output(graph.call_module("b", (y,)))
    return fx.GraphModule(root, graph).eval()


def kept(model: fx.GraphModule) -> None:
    """Widen, and compare at several batches."""
    before = {name: t.clone() for name, t in model.state_dict().items()}
    wide = fxgrow.widen(model, "a", example_inputs=(torch.zeros(4, 5, dtype=torch.float64),))
    for batch in (4, 1, 7):
        x = torch.randn(batch, 5, dtype=torch.float64)
        torch.testing.assert_close(wide(x), model(x), rtol=1e-9, atol=1e-12)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def width(x: Tensor) -> int:
    return x.shape[1]


def more(x: Tensor) -> Tensor:
    return torch.relu(x) * 2 if width(x) > 12 else torch.relu(x)


def fewer(x: Tensor) -> Tensor:
    return torch.relu(x) if width(x) > 12 else torch.relu(x) * 2


def other(x: Tensor) -> Tensor:
    return torch.tanh(x) if width(x) > 12 else torch.relu(x)


@torch.library.custom_op("fxgrow_tests::triple", mutates_args=())
def triple(x: Tensor) -> Tensor:
    """A custom operator, which has no rule."""
    return x * 3


@triple.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


triple.register_autograd(lambda ctx, grad: grad * 3)


def order(x: Tensor) -> Tensor:
    y = torch.relu(x)
    return x - y if width(x) > 12 else y - x


def dtype(x: Tensor) -> Tensor:
    return x.to(torch.float32 if width(x) > 12 else torch.float64).double()


def constant(x: Tensor) -> Tensor:
    return x * x.new_tensor(width(x) ** -0.5)


def constant_list(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, float(width(x))], dtype=x.dtype).prod()


def item(x: Tensor) -> Tensor:
    return x * torch.tensor(width(x)).item()


def filled(x: Tensor) -> Tensor:
    return x * torch.full((), 1 / width(x), dtype=x.dtype)


def text(x: Tensor) -> Tensor:
    return torch.div(x, 3.0, rounding_mode="floor" if width(x) > 12 else "trunc")


def turns(x: Tensor) -> Tensor:
    for _ in range(width(x) // 4):
        x = x * 0.5
    return x


def flag(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh" if width(x) > 12 else "none")


def number(x: Tensor) -> Tensor:
    return torch.mul(x, width(x) ** -0.5)


LOOKUP = (torch.tensor(2.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))


def outside(x: Tensor) -> Tensor:
    return x * LOOKUP[width(x) > 12]


def parts(x: Tensor) -> Any:
    return (x, x * 2) if width(x) > 12 else (x * 2, x)


@pytest.mark.parametrize(
    "function",
    [more, fewer, other, order, dtype, constant_list, item, text, turns, flag, outside],
)
def test_a_function_that_does_something_else_is_refused(function: Function) -> None:
    x = torch.linspace(-2, 2, 64, dtype=torch.float64).view(4, 16) * torch.tensor([1.0, -1.0]).repeat(8)
    assert not torch.equal(function(x)[:, :8], function(x[:, :8])), "the function does not look at the width"
    with pytest.raises(fxgrow.GrowthRefused) as refused:
        kept(between(function))
    assert refused.value.refusal.hint
    assert function.__name__ in str(refused.value)


@pytest.mark.parametrize("function", [constant, filled, number])
def test_a_function_that_computes_with_the_width_keeps_the_old_one(function: Function) -> None:
    kept(between(function))


def test_another_tree_of_results_is_refused() -> None:
    torch.manual_seed(0)
    root = nn.ModuleDict({"a": nn.Linear(5, 8), "b": nn.Linear(8, 3)}).double()
    graph = fx.Graph()
    both = graph.call_function(parts, (graph.call_module("a", (graph.placeholder("x"),)),))
    first = graph.call_function(operator.getitem, (both, 0))
    graph.output(graph.call_module("b", (first,)))
    with pytest.raises(fxgrow.GrowthRefused, match="returns something else"):
        kept(fx.GraphModule(root, graph).eval())


def plain(x: Tensor) -> Tensor:
    return torch.relu(x) * 2 if x.shape[0] > 100 else torch.relu(x)


def odd_constant(x: Tensor) -> Tensor:
    return x * torch.tensor(0.5, dtype=x.dtype)


def resized(x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[1], 1).tanh().view(x.shape)


def folded(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] * x.shape[1]).tanh().reshape(x.shape)


@pytest.mark.parametrize("function", [plain, odd_constant, resized, folded])
def test_a_function_that_does_the_same_grows(function: Function) -> None:
    kept(between(function))


class Halving(nn.Module):
    """A module that fx keeps whole because it looks at `training`."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training or width(x) <= 12 else x / 2


class Turning(nn.Module):
    """A module that fx keeps whole because it looks at `training`, and that may turn its units about."""

    def __init__(self, flip: bool) -> None:
        super().__init__()
        self.flip = flip

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1 if self.training else x
        return x.flip(1) if self.flip else x


@pytest.mark.parametrize("hook", [True, False])
def test_a_module_kept_whole_is_compared(hook: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU() if hook else Halving(), nn.Linear(8, 3)).double().eval()
    if hook:
        model[1].register_forward_hook(lambda m, args, out: out * 2 if width(out) > 12 else out)
    x = torch.randn(4, 5, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    with pytest.raises(fxgrow.GrowthRefused, match="at the new size it"):
        fxgrow.widen(traced, "0")
    assert fxgrow.widen(traced, "0", to=12)(x).shape == (4, 3)


class TestStale:
    """What is known of a model is found out anew when it no longer holds."""

    inputs = (torch.zeros(4, 5, dtype=torch.float64),)

    def refused_after(self, function: Function, change: Callable[[], object]) -> None:
        """Grow, change what the function does, and grow again."""
        model = between(function)
        fxgrow.widen(model, "a", example_inputs=self.inputs)
        change()
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.widen(model, "a")

    def test_a_settings_object(self) -> None:
        settings = types.SimpleNamespace(flip=False)

        def function(x: Tensor) -> Tensor:
            return x.flip(1) if settings.flip else x * 2

        self.refused_after(function, lambda: setattr(settings, "flip", True))

    @pytest.mark.parametrize("through_text", [False, True])
    def test_a_settings_object_after_the_plan_was_made(self, through_text: bool) -> None:
        settings = types.SimpleNamespace(flip=False)

        def function(x: Tensor) -> Tensor:
            return x.flip(1) if settings.flip else x * 2

        model = between(function)
        plan = fxgrow.plan_widen(model, "a", example_inputs=self.inputs)
        assert fxgrow.apply(plan, model).get_submodule("a").out_features == 16
        settings.flip = True
        with pytest.raises(fxgrow.FxgrowError):
            fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()) if through_text else plan, model)

    def test_a_hook_after_the_plan_was_made(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
        traced = fxgrow.trace(model, self.inputs)
        for plan in (fxgrow.plan_widen(traced, "0"), fxgrow.plan_grow(traced, widen={"0": 2.0}, deepen="1")):
            handle = traced.get_submodule("1").register_forward_hook(lambda m, args, out: out.cumsum(1))
            with pytest.raises(fxgrow.FxgrowError):
                fxgrow.apply(plan, traced)
            handle.remove()
            torch.testing.assert_close(fxgrow.apply(plan, traced)(self.inputs[0]), traced(self.inputs[0]))

    def test_a_plan_for_a_model_that_only_looks_the_same(self) -> None:
        def made(flip: bool) -> fx.GraphModule:
            torch.manual_seed(0)
            return fxgrow.trace(nn.Sequential(nn.Linear(5, 8), Turning(flip), nn.Linear(8, 3)).double(), self.inputs)

        one, copied, other = made(False), made(False), made(True)
        plan = fxgrow.plan_widen(one, "0")
        grown = fxgrow.apply(plan, copied)
        torch.testing.assert_close(grown(self.inputs[0]), copied(self.inputs[0]))
        with pytest.raises(fxgrow.FxgrowError):
            fxgrow.apply(plan, other)

    def test_a_threshold_that_only_the_new_width_reaches(self) -> None:
        settings = types.SimpleNamespace(most=100)

        def function(x: Tensor) -> Tensor:
            return x * 2 if width(x) > settings.most else x * 3

        self.refused_after(function, lambda: setattr(settings, "most", 12))

    def test_a_second_hook(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
        model[0].register_forward_hook(lambda m, args, out: out * 1.0)
        traced = fxgrow.trace(model, self.inputs)
        fxgrow.inspect(traced)
        traced.get_submodule("0").register_forward_hook(lambda m, args, out: out.flip(1))
        x = torch.randn(4, 5, dtype=torch.float64)
        try:
            wide = fxgrow.widen(traced, "0")
        except fxgrow.GrowthRefused:
            return
        torch.testing.assert_close(wide(x), traced(x), rtol=1e-9, atol=1e-12)

    def test_a_forward_of_its_own(self) -> None:
        model = fxgrow.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(), self.inputs)
        fxgrow.inspect(model)
        relu = model.get_submodule("1")
        relu.forward = lambda x: x.softmax(1)
        with pytest.raises(fxgrow.UsageError, match="the `forward` of 1 has been replaced on the instance"):
            fxgrow.widen(model, "0", scheme="r2r")

    def test_a_rule_registered_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = between(torch.ops.fxgrow_tests.triple.default)
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.widen(model, "a", example_inputs=self.inputs)
        monkeypatch.setitem(RULES, "fxgrow_tests::triple", Unary())
        assert fxgrow.widen(model, "a").get_submodule("a").out_features == 16

    def test_what_has_not_changed_is_not_found_out_again(self) -> None:
        model = between(plain)
        first = analysis_of(model, self.inputs)
        assert analysis_of(model) is first
