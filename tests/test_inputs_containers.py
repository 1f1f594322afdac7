"""Inputs and outputs that are containers: traced, remembered, grown, and compared with the original in both modes."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
import fxgrow.asserting
from fxgrow.api import analysis_of
from fxgrow.capture.call import remembered
from fxgrow.capture.containers import changed, found, leaves, paths, replaced

from .input_models import Batch, Classified, M, Net, Output, Pair, X, Y, grown, net, normal, same

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


# -- what is remembered ---------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Looks words up, under a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(50, 4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(self.table(batch["ids"]))))
        masked: Tensor = y * batch["mask"].unsqueeze(-1) * batch["scale"]
        return masked


def test_the_trace_remembers_whole_numbers_and_plain_values() -> None:
    ids, mask = torch.tensor([[7, 3, 9]]), torch.tensor([[True, True, False]])
    model = Words().eval()
    traced = fxgrow.trace(model, ({"ids": ids, "mask": mask, "scale": 0.5},))
    ids.zero_()  # the caller's tensor is the caller's
    call = remembered(copy.deepcopy(traced))
    assert call is not None
    (batch,) = call.args
    assert batch["ids"].tolist() == [[7, 3, 9]]
    assert torch.equal(batch["mask"], mask)
    assert batch["scale"] == 0.5
    wider = fxgrow.widen(traced, "a", verify=True)
    deeper = fxgrow.deepen(wider, after="a", verify=True)
    known = analysis_of(fxgrow.apply(fxgrow.plan_widen(deeper, "table"), deeper))
    (batch,) = known.inputs
    assert batch["ids"].max() == 9
    assert not known.guessed


def test_the_shape_of_floating_point_inputs_is_remembered_and_not_their_numbers() -> None:
    traced = fxgrow.trace(net(lambda s, x: s.b(s.hidden(x))), (X,))
    call = remembered(traced)
    assert call is not None
    assert call.args[0].is_meta
    assert call.args[0].shape == X.shape
    place = next(iter(traced.graph.nodes))
    assert place.meta["val"].shape == X.shape  # where torch's own tracers leave it


def test_given_inputs_win_over_remembered_ones() -> None:
    traced = fxgrow.trace(net(lambda s, x, m=None: s.b(s.hidden(x)) * m), (X,), example_kwargs={"m": M})
    assert analysis_of(traced).inputs[0].shape == (3, 4)
    other = analysis_of(traced, (normal(7, 4),), {"m": normal(7, 1)})
    assert other.inputs[0].shape == (7, 4)
    assert other.inputs[1].shape == (7, 1)
    assert fxgrow.trace(traced, (normal(5, 4), normal(5, 1))) is traced
    assert analysis_of(traced).inputs[0].shape == (5, 4)  # a second trace counts, though the model is unchanged


def test_a_graph_of_the_users_own_is_read_as_before() -> None:
    gm = fx.symbolic_trace(net(lambda s, x: s.b(s.hidden(x))))
    next(iter(gm.graph.nodes)).meta["val"] = torch.empty(6, 4, dtype=torch.float64, device="meta")
    analysis = analysis_of(gm)
    assert analysis.inputs[0].shape == (6, 4)
    assert not analysis.guessed


def test_inputs_that_are_edited_away_are_inferred_again() -> None:
    gm = fxgrow.trace(net(lambda s, x, y: s.b(s.hidden(x))), (X, Y))
    unused = next(n for n in gm.graph.nodes if n.target == "y")
    gm.graph.erase_node(unused)
    gm.recompile()
    assert len(analysis_of(gm).inputs) == 1


# -- what is guessed ------------------------------------------------------------------------------------------------


def test_a_guess_is_said_in_plan_and_certificate() -> None:
    gm = fx.symbolic_trace(net(lambda s, x: s.b(s.hidden(x))))
    said = "input x: shape 2x4, dtype float64 inferred from the first layer, not given"
    plan = fxgrow.plan_widen(gm, "a")
    assert said in plan.notes
    assert said in str(plan)
    wider = fxgrow.widen(gm, "a")
    assert said in fxgrow.verify(gm, wider).notes
    assert said in fxgrow.plan_deepen(wider, after="b").notes
    assert said in fxgrow.plan_grow(wider, widen=2).notes  # one guess stays one, however often it is used
    assert not fxgrow.plan_widen(fxgrow.trace(gm, (X,)), "a").notes
    assert not fxgrow.verify(gm, wider, example_inputs=(X,)).notes


def test_only_what_is_not_known_is_guessed() -> None:
    gm = fx.symbolic_trace(net(lambda s, x, y: s.b(s.hidden(x) + s.hidden(y))))
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    places[0].meta["val"] = torch.empty(5, 4, device="meta", dtype=torch.float64)
    places[1].meta["val"] = None
    with pytest.raises(fxgrow.UsageError):  # 5 and 2 rows do not fit together
        analysis_of(gm)
    gm = fx.symbolic_trace(net(lambda s, x, y: s.b(s.hidden(x)) + s.b(s.hidden(y)).mean()))
    next(iter(gm.graph.nodes)).meta["val"] = torch.empty(5, 4, device="meta", dtype=torch.float64)
    assert [line.split(":")[0] for line in analysis_of(gm).guessed] == ["input y"]


def test_what_cannot_be_guessed_is_refused() -> None:
    with pytest.raises(fxgrow.UsageError, match="cannot tell the shape of input"):
        analysis_of(fxgrow.trace(net(lambda s, x, **more: s.b(s.hidden(x) * more["m"]))))


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


def test_a_model_that_is_not_traced_is_compared_on_what_the_grown_one_remembers() -> None:
    model = net(lambda s, b: s.b(s.hidden(b["x"])))
    wider = grown(model, {"x": X})
    assert fxgrow.verify(model, wider).held
    assert fxgrow.asserting.assert_function_preserved(model, wider).held
    assert not fxgrow.verify(model, wider, example_inputs=({"x": normal(5, 4)},)).notes


def test_inputs_of_training_mode_are_kept_apart() -> None:
    model = net(lambda s, x, y=None: s.b(s.hidden(x)) if y is None else s.b(s.hidden(x)).sum() + y.mean())
    traced = fxgrow.trace(model, (X,), train_inputs=(X, Y))
    assert len(analysis_of(traced).inputs) == 1
    call = remembered(copy.deepcopy(traced), training=True)
    assert call is not None
    assert len(call.args) == 2
    traced = fxgrow.trace(model.train(), (X,), train_inputs=(X,), train_kwargs={"y": Y})
    wider = fxgrow.widen(traced, "a", verify=True)
    assert same(model(X, y=Y), wider(X, y=Y))
