"""Models that cannot be grown: refused by name before anything is analysed, and left as they were."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as quantized
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import fxgrow
from fxgrow import Kind, UsageError
from fxgrow.models_zoo import ResNet

from ..untouched import expect, snapshot

LAZY = ("a lazy module has no shapes yet", "run the model once on real data")
PARAMETRISED = ("a parametrised weight", "remove it first")
QUANTISED = ("a quantised module keeps packed integer weights", "then quantise the result")


@dataclass(frozen=True)
class Bad:
    """A layer that spoils the model it is in, and what is said of it."""

    layer: Callable[[], nn.Module]
    says: tuple[str, ...]


def pruned() -> nn.Module:
    """A linear layer whose weight is masked by a hook."""
    layer = nn.Linear(4, 6)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


LAYERS = {
    "lazy linear": Bad(lambda: nn.LazyLinear(6), (*LAZY, "1.0 (LazyLinear)")),
    "lazy norm": Bad(nn.LazyBatchNorm1d, (*LAZY, "1.0 (LazyBatchNorm1d)")),
    "weight norm": Bad(lambda: parametrizations.weight_norm(nn.Linear(4, 6)), (*PARAMETRISED, "1.0 (Par")),
    "weight norm, old style": Bad(lambda: weight_norm(nn.Linear(4, 6)), (*PARAMETRISED, "1.0 (Linear)")),
    "spectral norm": Bad(lambda: parametrizations.spectral_norm(nn.Linear(4, 6)), (*PARAMETRISED, "1.0 (Par")),
    "spectral norm, old style": Bad(lambda: spectral_norm(nn.Linear(4, 6)), (*PARAMETRISED, "1.0 (Linear)")),
    "orthogonal": Bad(lambda: parametrizations.orthogonal(nn.Linear(4, 6)), (*PARAMETRISED, "1.0 (Par")),
    "pruned": Bad(pruned, (*PARAMETRISED, "1.0 (Linear)")),
    "quantised": Bad(lambda: quantized.Linear(4, 6), (*QUANTISED, "1.0 (Linear)")),
    "quantised, dynamically": Bad(lambda: quantized.dynamic.Linear(4, 6), (*QUANTISED, "1.0 (Linear)")),
}


def built(layer: Callable[[], nn.Module]) -> nn.Module:
    """A model that is fine but for one layer in it. Torch warns of such layers, which is not our matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer(), nn.ReLU()), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("traced", [False, True], ids=["trace", "widen"])
def test_layers_that_hide_their_weights_are_refused_by_name(name: str, traced: bool) -> None:
    bad = LAYERS[name]
    model: Any = fx.symbolic_trace(built(bad.layer)) if traced else built(bad.layer)
    grow: Callable[[Any], object] = partial(fxgrow.widen, node="0", inplace=True) if traced else fxgrow.trace
    before = snapshot(model)
    with pytest.raises(UsageError) as caught:
        grow(model)
    expect(caught.value, Kind.UNSUPPORTED_MODEL, bad.says)
    assert snapshot(model) == before


@pytest.mark.parametrize("name", ["weight norm", "pruned"])
def test_what_the_message_says_to_try_helps(name: str) -> None:
    model = built(LAYERS[name].layer)
    layer = model.get_submodule("1.0")
    if name == "pruned":
        prune.remove(layer, "weight")
    else:
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
    traced = fxgrow.trace(model, (torch.randn(2, 4),))
    assert fxgrow.verify(traced, fxgrow.widen(traced, node="1.0")).held


def test_a_model_with_hooks_that_fx_would_forget_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    model.register_forward_hook(lambda module, given, result: 2 * result)
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(model)
    expect(caught.value, Kind.UNSUPPORTED_MODEL, ("forgets the forward hooks", "register them on the traced model"))


def test_a_model_whose_own_forward_fx_would_pass_over_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    forward = model.forward
    model.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign, no-untyped-call]  # as users do it
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(model)
    expect(caught.value, Kind.UNSUPPORTED_MODEL, ("this model's has been replaced", "in a subclass"))
    held = nn.Sequential(model)
    x = torch.randn(2, 4)
    assert torch.equal(fxgrow.trace(held)(x), model(x))


class Holds(nn.Module):
    """A model with another one inside."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.head = inside, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.inside(x))
        return y


@pytest.mark.parametrize(
    ("wrap", "way_out"),
    [
        (torch.compile, "fxgrow.trace(model._orig_mod, …), and compile the grown model"),
        (nn.DataParallel, "fxgrow.trace(model.module, …), and wrap the grown one"),
        (AveragedModel, "fxgrow.trace(model.module, …), and wrap the grown one"),
        (
            lambda model: Holds(torch.compile(model)),  # type: ignore[arg-type]  # a module in fact
            "set model.inside = model.inside._orig_mod before tracing",
        ),
    ],
)
def test_the_model_inside_a_wrapper_is_named(wrap: Callable[[nn.Module], nn.Module], way_out: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(wrap(model), (torch.randn(2, 4),))
    expect(caught.value, Kind.UNSUPPORTED_MODEL, ("torch.fx cannot trace", way_out))
    fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 4),)), "0")  # the way out


class Reads(nn.Module):
    """A layer, and code that torch.fx cannot follow."""

    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.read = nn.Linear(4, 4), read

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        z: Tensor = y * self.read(y)
        return z


@pytest.mark.parametrize(
    "read",
    [
        lambda x: torch.from_numpy(np.asarray(x)),
        lambda x: torch.from_numpy(np.array(x)),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: np.sqrt(x),
        lambda x: torch.frombuffer(x, dtype=torch.float32),
        lambda x: len(f"{x.sum():.3f}"),
        lambda x: len("%d" % x.sum()),  # noqa: UP031  # as users write it
        lambda x: bytes(x)[0],
    ],
)
def test_internals_are_not_named(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(Reads(read).eval(), (torch.randn(3, 4),))
    assert "a traced value" in str(caught.value)
    assert not re.search(r"Assignable|Proxy|__\w+__", caught.value.refusal.what)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_scripts_are_refused() -> None:
    script = torch.jit.trace(nn.Linear(4, 6), torch.zeros(2, 4))
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(script)
    expect(caught.value, Kind.UNSUPPORTED_MODEL, ("a TorchScript module", "grow the module it was made from"))


@pytest.mark.parametrize("verb", [fxgrow.widen, fxgrow.plan_widen])
def test_a_model_that_is_not_traced_is_told_how_to_be(verb: Callable[..., object]) -> None:
    model: Any = ResNet()
    before = snapshot(model)
    with pytest.raises(UsageError) as caught:
        verb(model, node="layer2.conv1")
    expect(caught.value, Kind.NOT_TRACEABLE, ("ResNet is not traced", "traced = fxgrow.trace(model)"))
    assert snapshot(model) == before


# -- models that torch.fx cannot trace: the line of the user's code, and what to do ----------------------------------


class Net(nn.Module):
    """Two linear layers, for forwards of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 3)
        self.eval()


class Branches(Net):
    """Looks at its data."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        if y.sum() > 0:
            y = -y
        z: Tensor = self.b(y)
        return z


class Flagged(Net):
    """Looks at an argument without a default."""

    def forward(self, x: Tensor, flag: bool) -> Tensor:
        y: Tensor = self.a(x)
        z: Tensor = self.b(-y if flag else y)
        return z


class Broken(Net):
    """Has a mistake that has nothing to do with tracing."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.get_submodule("c")(x)
        return y


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Branches, "in forward:  if y.sum() > 0:"),
        (Flagged, "in forward:  z: Tensor = self.b(-y if flag else y)"),
        (Broken, 'in forward:  y: Tensor = self.get_submodule("c")(x)'),
    ],
)
def test_models_that_cannot_be_traced_name_the_line(kind: type[Net], line: str) -> None:
    model = kind()
    before = snapshot(model)
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(model, (torch.zeros(2, 4),))
    expect(caught.value, Kind.NOT_TRACEABLE, (f"torch.fx cannot trace {kind.__name__}: ", "concrete_args", line))
    assert "  where   test_bad_models.py:" in str(caught.value)
    assert snapshot(model) == before


class Assigns(Net):
    """Assigns to the data of a tensor that it has computed."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        y.data = y.data * 2
        z: Tensor = self.b(y)
        return z


class Copies(Net):
    """The way out of that."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        y.data.copy_(y.data * 2)
        z: Tensor = self.b(y)
        return z


@pytest.mark.parametrize("inputs", [(torch.zeros(2, 4),), None], ids=["given", "guessed"])
def test_an_error_of_fxgrows_own_inside_a_trace_is_passed_on(inputs: Any) -> None:
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(Assigns(), inputs)
    says = ("FXG006  forward assigns to the data", "in forward:  y.data = y.data * 2", "x.data.copy_(y)")
    expect(caught.value, Kind.UNSUPPORTED_MODEL, says)
    assert "FXG007" not in str(caught.value)
    fxgrow.widen(fxgrow.trace(Copies(), inputs), "a")  # the way out


def count(x: Tensor) -> int:
    """How many entries are not zero."""
    return len(x.nonzero())


@torch.library.custom_op("fxgrow_tests::count", mutates_args=())
def registered_count(x: Tensor) -> Tensor:
    """The same, as an operator."""
    return torch.tensor(len(x.nonzero()))


@registered_count.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((), dtype=torch.int64)


class Counts(Net):
    """Reads a length that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y * count(y)


class CountsByOperator(Net):
    """The same by an operator of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        z: Tensor = y * registered_count(y)
        return z


class Covariance(Net):
    """Calls a function of torch's that reads a value."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return torch.cov(y)


class CovarianceByHand(Net):
    """The same by operators that read none."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        c = y - y.mean(1, keepdim=True)
        return c @ c.T / (y.shape[1] - 1)


class Picks(Net):
    """Calls a method whose result has a shape that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y.nonzero()


def test_a_length_that_depends_on_values_is_named() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(Counts(), (x,))
    says = ("the length of a traced value is known only when the model runs", "return len(x.nonzero())", "leaf=")
    expect(caught.value, Kind.NOT_TRACEABLE, says)
    assert "torch.fx.wrap" not in str(caught.value)
    model = Counts()
    torch.testing.assert_close(fxgrow.trace(model, (x,), leaf=count)(x), model(x))  # the way out


@pytest.mark.parametrize("inputs", [(torch.randn(3, 4),), None], ids=["given", "guessed"])
@pytest.mark.parametrize(
    ("bad", "leaf", "says", "way_out"),
    [
        (Covariance, (), "(torch.cov) runs aten.equal, which reads values", CovarianceByHand),
        (Counts, count, "(count) runs aten.nonzero, which returns a tensor whose shape depends", CountsByOperator),
        (Picks, (), "(Tensor.nonzero) runs aten.nonzero, which returns a tensor whose shape", CountsByOperator),
    ],
)
def test_calls_that_read_values_are_named_with_the_line(
    bad: type[Net], leaf: Any, says: str, way_out: type[Net], inputs: Any
) -> None:
    traced = fxgrow.trace(bad(), inputs, leaf=leaf)
    with pytest.raises(UsageError) as caught:
        fxgrow.widen(traced, "a")
    expect(caught.value, Kind.UNSUPPORTED_MODEL, (says, "where   test_bad_models.py:", "torch.library.custom_op"))
    model = way_out()
    grown = fxgrow.widen(fxgrow.trace(model, inputs), "a")
    x = torch.randn(5, 4)
    torch.testing.assert_close(grown(x), model(x))


def test_concrete_args_that_forward_does_not_take() -> None:
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(Flagged(), concrete_args={"flagg": True})
    expect(caught.value, Kind.BAD_OPTION, ("forward of Flagged has no argument 'flagg'", "x, flag"))


@pytest.mark.parametrize("inputs", [(), (torch.zeros(2, 4),) * 2, 7], ids=["none", "two", "no tensor"])
def test_traces_with_other_inputs_than_forward_takes(inputs: Any) -> None:
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), inputs)
    expect(caught.value, Kind.BAD_INPUTS, ("example_inputs",))


def test_shapes_that_nothing_tells_are_asked_for() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(UsageError) as caught:
        fxgrow.inspect(fxgrow.trace(Sum()))
    expect(caught.value, Kind.BAD_INPUTS, ("cannot tell the shape of input x", "pass example_inputs=(tensor, ...)"))
