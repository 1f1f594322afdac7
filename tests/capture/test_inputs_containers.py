"""Inputs and outputs that are containers: traced, remembered, grown, and compared with the original in both modes."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

import fxgrow
import fxgrow.asserting
from fxgrow.capture.containers import changed, found, leaves, paths, replaced

from ..models.input import Batch, Classified, M, Net, Output, Pair, X, Y, grown, net, same

Forward = Callable[..., Any]

INPUTS: dict[str, tuple[Forward, tuple[Any, ...], dict[str, Any]]] = {
    "a list": (lambda s, f: s.b(s.hidden(f[0])) + s.b(s.hidden(f[-1])), ([X, Y],), {}),
    "a slice of a list": (lambda s, f: s.b(s.hidden(torch.cat(f[1:], 0))), ([X, Y, X],), {}),
    "a list as an argument": (lambda s, x, f: s.b(s.hidden(torch.cat(f, 0) + x.mean())), (X, [X, Y]), {}),
    "a dict": (lambda s, b: {"y": s.b(s.hidden(b["x"])) * b["w"]}, ({"x": X, "w": M},), {}),
    "get of a dict": (lambda s, b: s.b(s.hidden(b.get("x"))), ({"x": X, "none": None},), {}),
    "an OrderedDict": (lambda s, b: s.b(s.hidden(b["x"])), (OrderedDict(x=X),), {}),
    "a UserDict": (lambda s, b: s.b(s.hidden(b["x"])), (UserDict(x=X),), {}),
    "a defaultdict": (lambda s, b: s.b(s.hidden(b["x"])), (defaultdict(list, x=X),), {}),
    "a ModelOutput": (
        lambda s, b: s.b(s.hidden(b.logits) + s.hidden(b["hidden"])),
        (Classified(logits=X, hidden=Y),),
        {},
    ),
    "a frozen dataclass": (lambda s, b: s.b(s.hidden(b.x + b.rest[0]) * b.scale), (Batch(X, 0.5, (Y,)),), {}),
    "a named tuple": (lambda s, b: s.b(s.hidden(b.x)) + b.y.mean(), (Pair(X, Y),), {}),
    "nested": (lambda s, b: [s.b(s.hidden(b["f"][0][1]["x"])), None, 3, "t"], ({"f": [(Y, {"x": X})]},), {}),
    "by name": (lambda s, x, mask=None: s.b(s.hidden(x) if mask is None else s.hidden(x) * mask), (X,), {"mask": M}),
    "None": (lambda s, x, mask=None: s.b(s.hidden(x) if mask is None else s.hidden(x) * mask), (X, None), {}),
    "by name only": (lambda s, x, *, mask: s.b(s.hidden(x) * mask["m"]), (X,), {"mask": {"m": M}}),
    "by name only, behind a default": (lambda s, x, y=2, *, m: s.b(s.hidden(x) * m * y), (X, 3.0), {"m": M}),
    "rest": (lambda s, *xs: s.b(s.hidden(xs[0]) + s.hidden(xs[1])), (X, Y), {}),
    "rest, then by name": (lambda s, x, *xs, k=None: s.b(s.hidden(x) + s.hidden(xs[0]) * k), (X, Y), {"k": M}),
    "more": (lambda s, x, **more: s.b(s.hidden(x) * more["m"]), (X,), {"m": M}),
    "by place only": (eval("lambda s, x, /, y: s.b(s.hidden(x)) + y.mean()"), (X, Y), {}),
}


@pytest.mark.parametrize("name", INPUTS)
def test_containers_and_names_as_inputs(name: str) -> None:
    forward, args, kwargs = INPUTS[name]
    model = net(forward)
    traced = fxgrow.trace(model, args, example_kwargs=kwargs)
    wider = fxgrow.widen(traced, "a", verify=True)
    assert wider.get_submodule("a").out_features == 16
    for training in (False, True):
        model.train(training), traced.train(training), wider.train(training)
        before = model(*args, **kwargs)
        assert same(before, traced(*args, **kwargs))
        assert same(before, wider(*args, **kwargs))
    assert fxgrow.verify(model, wider, example_inputs=args, example_kwargs=kwargs).held
    assert fxgrow.bisect(traced, wider) is None
    again = fxgrow.grow(wider, widen=1.5, verify=True)  # the grown model remembers, too
    assert same(model(*args, **kwargs), again(*args, **kwargs))


OUTPUTS: dict[str, Forward] = {
    "a dataclass": lambda s, x: Output(s.b(s.hidden(x))),
    "a dataclass beside a tensor": lambda s, x: (s.b(s.hidden(x)).sum(), Output(s.b(s.hidden(x)), "text")),
    "a dataclass that is read": lambda s, x: Output(Output(s.b(s.hidden(x))).logits.softmax(-1)),
    "a ModelOutput": lambda s, x: Classified(logits=s.b(s.hidden(x))),
    "an OrderedDict": lambda s, x: OrderedDict(y=s.b(s.hidden(x)), n=None),
    "a named tuple": lambda s, x: Pair(s.b(s.hidden(x)), x),
    "nested": lambda s, x: {"y": [(s.b(s.hidden(x)), None)], 1: "t", "n": 2},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_containers_as_outputs(name: str) -> None:
    model = net(OUTPUTS[name])
    wider = grown(model, X)
    for training in (False, True):
        model.train(training), wider.train(training)
        assert same(model(X), wider(X))


@pytest.mark.parametrize("kind", [Output, Classified, Pair])
def test_tensors_in_an_output_are_interface(kind: Any) -> None:
    def forward(s: Any, x: Tensor) -> Any:
        hidden = s.hidden(x)
        return s.b(hidden).sum(), kind(s.b(hidden), hidden)

    traced = fxgrow.trace(net(forward), (X,))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind is fxgrow.Kind.OUTPUT


def test_a_width_in_an_output_is_interface() -> None:
    traced = fxgrow.trace(net(lambda s, x: Output(s.b(s.hidden(x)), s.hidden(x).shape[1])), (X,))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind is fxgrow.Kind.OUTPUT


# -- calls that do not fit ------------------------------------------------------------------------------------------


def test_calls_that_do_not_fit_are_refused() -> None:
    model = net(lambda s, x, y: s.b(s.hidden(x)) + y.mean())
    for args, kwargs, text in (
        ((X,), None, "takes 2 inputs"),
        ((X, Y, Y), None, "example_inputs holds 3"),
        ((X,), {"z": Y}, "example_kwargs z"),
        ((X, Y), {"y": Y}, "takes 2 inputs"),
        (X, [Y], "example_kwargs must be a dict"),
        ((SimpleNamespace(x=X), Y), None, "SimpleNamespace"),
        (({X}, Y), None, "set"),
    ):
        with pytest.raises(fxgrow.UsageError) as caught:
            fxgrow.trace(model, args, example_kwargs=kwargs)  # type: ignore[arg-type]  # on purpose
        assert caught.value.kind is fxgrow.Kind.BAD_INPUTS
        assert text in str(caught.value)
    assert not set(model.__dict__) - set(net(Net.forward).__dict__)


def test_what_is_fixed_refuses_another_value() -> None:
    model = net(lambda s, x, m=None: s.b(s.hidden(x) if m is None else s.hidden(x) * m))
    wider = grown(model, X, None)
    assert same(model(X, None), wider(X, None))
    assert same(model(X), wider(X))
    assert same(model(X), wider(X, m=None))
    with pytest.raises(AssertionError, match="specialized"):
        wider(X, M)
    flag = net(lambda s, x, flag: s.b(s.hidden(x) * 2 if flag else s.hidden(x)))
    traced = fxgrow.trace(flag, (X, True), concrete_args={"flag": True})
    assert same(flag(X, True), fxgrow.widen(traced, "a")(X, True))
    with pytest.raises(AssertionError, match="specialized"):
        traced(X, False)


NAMES: dict[str, tuple[Forward, int]] = {
    "x_in beside x": (lambda s, x_in, x=None: s.b(s.hidden(x_in) if x is None else s.hidden(x)), 1),
    "x_1 beside x": (lambda s, x_1, x=None: s.b(s.hidden(x_1) if x is None else s.hidden(x)), 1),
    "x beside x_1": (lambda s, x, x_1=None: s.b(s.hidden(x) if x_1 is None else s.hidden(x_1)), 1),
    "all of x": (lambda s, x_1, x, x_2=None, x_1_1=3: s.b(s.hidden(x_1) * x_1_1 + s.hidden(x)), 2),
    "int and int_1": (lambda s, int, int_1: s.b(s.hidden(int) * 2 + s.hidden(int_1)), 2),
    "int_1 and int": (lambda s, int_1, int: s.b(s.hidden(int_1) * 2 + s.hidden(int)), 2),
    "builtins": (lambda s, input, len, type=None: s.b(s.hidden(input)) + len.mean(), 2),
    "an operator": (lambda s, relu, add=1: s.b(s.hidden(relu) + add), 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_arguments_that_are_alike(name: str) -> None:
    forward, count = NAMES[name]
    model, args = net(forward), (X, Y)[:count]
    assert same(model(*args), grown(model, *args)(*args))


# -- trees ----------------------------------------------------------------------------------------------------------


def test_trees_are_opened_and_built_anew() -> None:
    tree: Any = {"a": [1, Batch(X, 2.0, (Y,))], "b": Classified(logits=X), "c": slice(1, None), "d": Pair(Y, None)}
    assert [t is X or t is Y for t in found(tree, Tensor)] == [True] * 4
    assert replaced(tree, Tensor, lambda t: t) is not tree
    twice = changed(tree, lambda leaf: leaf * 2 if isinstance(leaf, Tensor) else leaf)
    assert torch.equal(twice["a"][1].rest[0], 2 * Y)
    assert torch.equal(twice["b"].logits, 2 * X)
    assert twice["d"].y is None
    assert type(twice["b"]) is Classified
    assert twice["c"] == slice(1, None)
    assert tree["a"][1].rest[0] is Y
    assert [name for name, _ in paths(tree, "t")][:4] == [
        "t['a'][0]",
        "t['a'][1].x",
        "t['a'][1].scale",
        "t['a'][1].rest[0]",
    ]
    assert leaves("text") == ["text"]


@dataclass
class Squared:
    """An output that computes one of its fields."""

    y: Any
    square: Any = field(init=False)

    def __post_init__(self) -> None:
        self.square = self.y * self.y


class Opaque:
    """A class that its library has told torch how to open."""

    def __init__(self, x: Any) -> None:
        self.x = x


_pytree.register_pytree_node(Opaque, lambda o: ([o.x], None), lambda items, _: Opaque(*items))


def test_classes_that_make_fields_of_their_own() -> None:
    model = net(lambda s, x: Squared(s.b(s.hidden(x))))
    assert same(model(X), grown(model, X)(X))
    traced = fxgrow.trace(net(lambda s, x: Squared(s.hidden(x))), (X,))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind is fxgrow.Kind.OUTPUT


def test_classes_that_are_registered_with_torch() -> None:
    model = net(lambda s, o: s.b(s.hidden(o.x)))
    assert same(model(Opaque(X)), grown(model, Opaque(X))(Opaque(X)))


def test_blocks_go_behind_layers_of_models_that_take_containers() -> None:
    model = net(lambda s, batch, *, scale: {"y": s.b(s.hidden(batch["x"]) * scale)})
    traced = fxgrow.trace(model, ({"x": X},), example_kwargs={"scale": 0.5})
    deeper = fxgrow.deepen(traced, after="a", verify=True)
    assert same(model({"x": X}, scale=2.0), deeper({"x": X}, scale=2.0))
    with pytest.raises(fxgrow.FxgrowError):
        fxgrow.deepen(traced, after="batch")  # a container is no value that a block could be added to
    plan = fxgrow.Plan.from_json(fxgrow.plan_widen(traced, "a").to_json())
    assert same(model({"x": X}, scale=2.0), fxgrow.apply(plan, traced)({"x": X}, scale=2.0))


class Gated(nn.Module):
    """A residual block that reads more than the stream: a gate in a dict, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, batch: dict[str, Any], scale: float) -> Tensor:
        y: Tensor = x + self.second(torch.relu(self.first(x)) * batch["gate"]) * scale
        return y


class Stack(nn.Module):
    """Two blocks that read what the model is given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList([Gated(), Gated()])

    def forward(self, batch: dict[str, Any], scale: float = 1.0) -> Tensor:
        x = self.a(batch["x"])
        for block in self.blocks:
            x = block(x, batch, scale)
        y: Tensor = self.b(x)
        return y


@pytest.mark.parametrize("block", ["clone", "mlp"])
def test_blocks_that_read_a_container_and_a_number(block: str) -> None:
    torch.manual_seed(0)
    model = Stack().double().eval()
    batch = {"x": X, "gate": M}
    traced = fxgrow.trace(model, (batch,), example_kwargs={"scale": 0.5})
    deeper = fxgrow.deepen(traced, after="blocks.1", block=block, verify=True)
    larger = fxgrow.grow(traced, widen={"blocks.0.first": 2}, deepen={"blocks.1": block}, verify=True)
    for scale in (0.5, 0.0, 3):
        assert same(model(batch, scale), deeper(batch, scale=scale))
        assert same(model(batch, scale), larger(batch, scale))


@pytest.mark.parametrize("by_name", [False, True])
def test_a_plan_of_several_steps_is_proved_again_for_such_inputs(by_name: bool) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, xs: list[Tensor]) -> Tensor:
            y: Tensor = self.b(torch.relu(self.a(xs[0])))
            return y

    class Named(Listed):
        def forward(self, *, x: Tensor) -> Tensor:  # type: ignore[override]  # another signature
            return super().forward([x])

    x = torch.ones(2, 3)
    model: nn.Module = Named().eval() if by_name else Listed().eval()
    traced = fxgrow.trace(model, example_kwargs={"x": x}) if by_name else fxgrow.trace(model, ([x],))
    plan = fxgrow.plan_grow(traced, widen={"a": 2.0}, deepen="relu")
    assert plan.then
    grown = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
    found, wanted = (m(x=x) if by_name else m([x]) for m in (grown, model))
    assert torch.allclose(found, wanted, atol=1e-6)
