"""Models that torch.compile compiles in part: traced as their eager code, or refused with a way out."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind, UsageError
from fxgrow.capture.user_objects.module_twin import Twin

from ..untouched import expect, snapshot

X, LONGER = torch.randn(3, 4), torch.randn(5, 4)
COMPILED: list[fx.GraphModule] = []
"""What a backend was asked to compile."""


def backend(graph: fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    """Compiles nothing, and remembers that it was asked to."""
    COMPILED.append(graph)
    return graph.forward


def compiled(function: Any) -> Any:
    """What `@torch.compile` makes of it."""
    return torch.compile(function, backend=backend)


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    """What torch.compile has made for another test is forgotten."""
    torch.compiler.reset()
    COMPILED.clear()


def twice(x: Tensor) -> Tensor:
    """A function that a `forward` calls."""
    return torch.relu(x) * 2


fast_twice = compiled(twice)


def really(model: nn.Module) -> Tensor:
    """What a model computes with its compiled code. (Dynamo warns with gradients.)"""
    with torch.no_grad():
        y: Tensor = model(X)
    return y


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


class OfClass(Net):
    """`forward` is compiled in the class."""

    @compiled
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


class CallsCompiled(Net):
    """A global function is compiled."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(fast_twice(self.a(x)))
        return y


class Compiles(Net):
    """`forward` compiles a function itself."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.compile(twice, backend=backend)(self.a(x)))
        return y


class OfInstance(Net):
    """`forward` of the instance is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = compiled(self.forward)  # type: ignore[method-assign]


class OfMethod(Net):
    """An attribute holds a compiled method."""

    def __init__(self) -> None:
        super().__init__()
        self.fast = compiled(self.head)

    def head(self, x: Tensor) -> Tensor:
        """The second half."""
        y: Tensor = self.b(torch.relu(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fast(self.a(x))
        return y


class OfClosure(Net):
    """An attribute holds a compiled function that has closed over the model."""

    def __init__(self) -> None:
        super().__init__()
        self.fast = compiled(lambda x: self.b(torch.relu(x)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fast(self.a(x))
        return y


class Drops(nn.Module):
    """Without parameters, and it looks at the mode: torch.fx keeps it whole."""

    @compiled
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x) if self.training else torch.relu(x)


class Inside(Net):
    """A module inside that is compiled in a way."""

    def __init__(self, way: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inside = way()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(self.inside(x))))
        return y


def called(path: str = "") -> Net:
    """A model of which one module is compiled by `module.compile()`."""
    net = Net()
    net.get_submodule(path).compile(backend=backend)
    return net


def block() -> nn.Module:
    """A module that torch.fx looks into, compiled by `module.compile()`."""
    made = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    made.compile(backend=backend)
    return made


WAYS: dict[str, Callable[[], nn.Module]] = {
    "the model": called,
    "a layer": lambda: called("a"),
    "a block": lambda: Inside(block),
    "forward of the class": OfClass,
    "forward of the instance": OfInstance,
    "forward of an instance inside": lambda: Inside(lambda: nn.Sequential(OfInstance(), nn.Linear(3, 4))),
    "a function": CallsCompiled,
    "a function in forward": Compiles,
    "a method": OfMethod,
    "a closure": OfClosure,
    "a module that looks at the mode": lambda: Inside(Drops),
}


def compiles(name: str) -> bool:
    """Whether torch compiles a model that nobody has traced. torch 2.11 does not compile layers of its own inside."""
    torch._dynamo.reset()
    COMPILED.clear()
    really(WAYS[name]())
    found = bool(COMPILED)
    assert found or torch.__version__ < "2.12"
    return found


@pytest.mark.parametrize("name", WAYS)
def test_compiled_code_is_traced_as_the_eager_code(name: str) -> None:
    model = WAYS[name]()
    before, held = snapshot(model), [dict(vars(module)) for module in model.modules()]
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    assert not COMPILED
    assert snapshot(model) == before
    assert all(vars(m)[k] is v for m, old in zip(model.modules(), held, strict=True) for k, v in old.items())
    assert grown.get_submodule("a").weight.shape == (12, 4)
    assert all("_compiled_call_impl" not in vars(module) for module in grown.modules())
    with torch.compiler.set_stance("force_eager"):
        for x in (X, LONGER):
            torch.testing.assert_close(traced(x), model(x))
            torch.testing.assert_close(grown(x), model(x))
    assert not COMPILED
    really(model)
    assert bool(COMPILED) is compiles(name)  # as before


FIRST = """
import sys, torch, fxgrow
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(torch.compile(torch.relu)(self.a(x)))

assert "torch._dynamo" not in sys.modules
print(fxgrow.trace(Net().eval(), (torch.randn(3, 4),)).graph)
"""


def test_the_first_call_of_torch_compile_may_be_in_forward() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=300)
    assert "target=torch.relu" in done.stdout, done.stderr


def test_compiled_code_is_compared_with_the_graph() -> None:
    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu if torch.fx._symbolic_trace.is_fx_symbolic_tracing() else torch.tanh
            z: Tensor = self.b(compiled(y)(self.a(x)))
            return z

    with pytest.raises(UsageError, match="does not run what the module runs") as caught:
        fxgrow.trace(Other(), (X,))
    assert "test_compiled.py:" in caught.value.refusal.where


def test_a_function_that_is_kept_whole_may_be_compiled() -> None:
    model = CallsCompiled()
    traced = fxgrow.trace(model, (X,), leaf=fast_twice)
    assert any(node.target is fast_twice for node in traced.graph.nodes)
    grown = fxgrow.widen(traced, "a")
    assert not COMPILED
    torch.testing.assert_close(really(grown), really(model))


def test_a_plan_stays_valid_when_the_model_is_compiled() -> None:
    traced = fxgrow.trace(Net(), (X,))
    plan = fxgrow.plan_widen(traced, "a")
    for part in ("", "a"):
        traced.get_submodule(part).compile(backend=backend)
    grown = fxgrow.apply(plan, traced)
    torch.testing.assert_close(really(grown), really(traced))
    assert grown.get_submodule("a")._compiled_call_impl is None


def test_a_twin_does_not_call_the_module_it_was_made_from() -> None:
    for way in WAYS.values():
        model = way()
        twin = Twin(lambda tensor: nn.Parameter(tensor.detach().clone()))(model)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for parameter in twin.parameters():
                parameter.zero_()
            assert twin(X).abs().max() == 0


class Asks(Net):
    """Does something else where it is compiled."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        z: Tensor = self.b(y * 2 if torch.compiler.is_compiling() else y)
        return z


class AsksInFunction(Net):
    """The same, in a function that is compiled by itself."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(fast_asks(self.a(x)))
        return y


def asks(x: Tensor) -> Tensor:
    """Does something else where it is compiled."""
    return x * 2 if torch.compiler.is_compiling() else x


fast_asks = compiled(asks)


def test_code_that_asks_whether_it_is_compiled_is_refused_where_it_is() -> None:
    model = Asks()
    fxgrow.trace(model, (X,))
    model.compile(backend=backend)
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(model, (X,))
    expect(caught.value, Kind.UNSUPPORTED_MODEL, ("torch.compiler.is_compiling()", "copy.deepcopy"))
    fxgrow.widen(fxgrow.trace(copy.deepcopy(model), (X,)), "a")  # the way out
    with pytest.raises(UsageError, match=r"torch\.compiler\.is_compiling\(\)"):
        fxgrow.trace(AsksInFunction(), (X,))


def test_a_layer_that_would_keep_its_compiled_forward_is_refused() -> None:
    model = Net()
    model.b.forward = compiled(model.b.forward)  # type: ignore[method-assign]
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(model, (X,))
    expect(
        caught.value, Kind.UNSUPPORTED_MODEL, ("b.forward has been replaced by a compiled function", "del b.forward")
    )
    del model.b.forward  # the way out
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    grown.get_submodule("b").compile(backend=backend)
    torch.testing.assert_close(really(grown), really(model))


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel], ids=["compile", "DataParallel"])
@pytest.mark.parametrize("verb", ["widen", "inspect", "bisect"])
def test_the_traced_model_inside_a_wrapper_is_named(wrap: Callable[[nn.Module], Any], verb: str) -> None:
    traced = fxgrow.trace(Net(), (X,))
    wrapped = wrap(traced)
    asked: dict[str, Callable[[Any], object]] = {
        "widen": lambda model: fxgrow.widen(model, "a"),
        "inspect": fxgrow.inspect,
        "bisect": lambda model: fxgrow.bisect(model, model),
    }
    with pytest.raises(UsageError) as caught:
        asked[verb](wrapped)
    inside = "module" if wrap is nn.DataParallel else "_orig_mod"
    expect(caught.value, Kind.UNSUPPORTED_MODEL, (f"pass the traced model inside, model.{inside}, and ",))
    asked[verb](getattr(wrapped, inside))  # the way out
    with pytest.raises(UsageError, match=f"model.{inside}"):
        fxgrow.trace(wrapped)
