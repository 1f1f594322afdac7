"""Containers among the inputs that `forward` writes to: traced, grown and compared with the original, or refused."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.user_objects.container_state import changes, contents, copied, is_object, mutable
from fxgrow.testing.fidelity import check_fidelity

from ..models.input import Classified, Net, X, Y, net

Body = Callable[..., Any]
Given = Callable[[], tuple[Any, ...]]


@dataclass
class State:
    """An input that some models write to."""

    x: Any
    n: int = 1
    h: Any = None


class Names(list[Any]):
    """A list of the user's own class, with Python's methods."""


class Twice(list[Any]):
    """A list that appends everything twice."""

    def append(self, x: Any) -> None:
        super().append(x)
        super().append(x)


class Settings:
    """An object of a class that torch cannot open."""

    def __init__(self) -> None:
        self.calls = 1


@torch.fx.wrap
def push(given: list[Any], y: Tensor) -> Tensor:
    given.append(y)
    return y


@torch.fx.wrap
def handed_back(given: list[Any]) -> list[Any]:
    return given


def found(model: nn.Module, given: Given) -> dict[str, Any]:
    """What a call returns and leaves in its inputs, by name."""
    args = given()
    output = model(*args)
    return contents((output, args), "", lambda leaf: leaf)


def agree(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two calls return and leave the same."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-11)
        return bool(a == b)

    return before.keys() == after.keys() and all(same(x, after[name]) for name, x in before.items())


def core(s: Any, x: Tensor) -> Tensor:
    y: Tensor = s.b(s.hidden(x))
    return y


def added(s: Any, x: Tensor, feats: Any) -> Tensor:
    y = core(s, x)
    feats += [y]
    return y


def merged(s: Any, d: Any) -> Tensor:
    y = core(s, d["x"])
    d |= {"y": y}
    return y


def fields(s: Any, state: State) -> Tensor:
    y = core(s, state.x)
    state.n = 3
    state.h = y
    return y


def inner(s: Any, d: Any) -> Tensor:
    y = core(s, d["x"])
    d["state"].h = y
    d["state"].x += [y]
    return y


def deleted(s: Any, d: Any) -> Tensor:
    y = core(s, d["x"])
    del d["x"]
    return y


def appended(s: Any, x: Tensor, feats: Any) -> Tensor:
    y = core(s, x)
    feats.append(y)
    return y


def returned(s: Any, batch: Any) -> Any:
    batch["y"] = core(s, batch["x"])
    return batch


def returned_list(s: Any, xs: Any) -> Any:
    xs.append(core(s, xs[0]))
    return xs


def popped(s: Any, batch: Any) -> Any:
    k = batch.pop("label")
    return core(s, batch["x"]) + k


def another_entry(s: Any, xs: Any) -> Any:
    xs[1] = core(s, xs[0])
    return xs[0].sum() + xs[1]


def taken_out(s: Any, xs: Any) -> Tensor:
    xs.append(s.hidden(xs[0]))
    y: Tensor = s.b(xs[-1] + xs[1:][-1])
    xs.pop()
    return y


def taken_out_of_a_dict(s: Any, d: Any) -> Tensor:
    d["h"] = s.hidden(d["x"])
    d["w"] = d["h"] * 2
    y: Tensor = s.b(d["h"] + d["w"])
    d.pop("w")
    del d["h"]
    return y


def all_of_them(s: Any, xs: Any) -> Tensor:
    xs.append(xs[0] * 2)
    return core(s, torch.stack(xs).sum(0))


def nested(s: Any, d: Any) -> Tensor:
    some = d["list"]
    some.append(core(s, d["x"]))
    y: Tensor = d["list"][-1] * 2
    return y


def a_number(s: Any, d: Any) -> Any:
    d["m"] = d["n"] * 2
    return core(s, d["x"]) * d["m"]


def overwritten(s: Any, d: Any) -> Tensor:
    d["x"] = d["x"] * 2
    return core(s, d["x"])


def read_twice(s: Any, d: Any) -> Tensor:
    one, other = d["inner"], d["inner"]
    one["k"] = d["x"] * 1
    other["k"] = d["x"] * 3
    return core(s, one["k"])


GROWN: dict[str, tuple[Body, Given]] = {
    "added to a list": (added, lambda: (X, [Y])),
    "merged into a dict": (merged, lambda: ({"x": X},)),
    "fields of a dataclass": (fields, lambda: (State(X),)),
    "a dataclass in a dict": (inner, lambda: ({"x": X, "state": State([X])},)),
    "deleted": (deleted, lambda: ({"x": X},)),
    "appended": (appended, lambda: (X, [])),
    "appended to a list of another class": (appended, lambda: (X, Names())),
    "a dict that is returned": (returned, lambda: ({"x": X},)),
    "an OrderedDict that is returned": (returned, lambda: (OrderedDict(x=X),)),
    "a list that is returned": (returned_list, lambda: ([X],)),
    "another key is popped": (popped, lambda: ({"x": X, "label": torch.ones(3, 2).double()},)),
    "a number is popped": (popped, lambda: ({"x": X, "label": 2.0},)),
    "another entry is read": (another_entry, lambda: ([X, Y],)),
    "taken out again": (taken_out, lambda: ([X],)),
    "taken out of a dict": (taken_out_of_a_dict, lambda: ({"x": X},)),
    "all are read": (all_of_them, lambda: ([X],)),
    "nested": (nested, lambda: ({"x": X, "list": []},)),
    "a number": (a_number, lambda: ({"x": X, "n": 3},)),
    "overwritten": (overwritten, lambda: ({"x": X},)),
    "read twice": (read_twice, lambda: ({"x": X, "inner": {}},)),
}


@pytest.mark.parametrize("name", GROWN)
def test_what_is_written_arrives_and_the_hidden_layer_grows(name: str) -> None:
    body, given = GROWN[name]
    model, example = net(body), given()
    before = contents(example, "", lambda leaf: leaf)
    traced = fxgrow.trace(model, example)
    wider = fxgrow.widen(traced, "a", verify=True)
    assert not changes(before, contents(example, "", lambda leaf: leaf))
    assert wider.get_submodule("a").out_features == 16
    for training in (False, True):
        model.train(training), traced.train(training), wider.train(training)
        assert agree(found(model, given), found(traced, given))
        assert agree(found(model, given), found(wider, given))
    assert check_fidelity(model, traced, given())
    assert fxgrow.verify(model, wider, example_inputs=given()).held
    assert fxgrow.bisect(traced, wider) is None
    again = fxgrow.grow(wider, widen=1.5, verify=True)
    assert agree(found(model, given), found(again, given))


def into(write: Callable[[Any, Tensor], Any]) -> Body:
    """Hidden features that are written into an input."""

    def forward(s: Any, x: Tensor, given: Any) -> Any:
        h = s.hidden(x)
        write(given, h)
        return s.b(h)

    return forward


def setting(key: Any) -> Callable[[Any, Tensor], Any]:
    def write(given: Any, h: Tensor) -> None:
        given[key] = h

    return write


def adding(given: Any, h: Tensor) -> None:
    given += [h]


def merging(given: Any, h: Tensor) -> None:
    given |= {"h": [h]}


def assigning(given: Any, h: Tensor) -> None:
    given.h = h


def both(s: Any, x: Tensor, given: Any) -> Any:
    h = s.hidden(x)
    given.append(h)
    return s.b(h), given


PINNED: dict[str, tuple[Body, Callable[[], Any]]] = {
    "append": (into(lambda given, h: given.append(h)), list),
    "append and return": (both, lambda: [X]),
    "extend": (into(lambda given, h: given.extend([h, h])), list),
    "insert": (into(lambda given, h: given.insert(0, h)), lambda: [X]),
    "an entry of a list": (into(setting(0)), lambda: [X]),
    "+=": (into(adding), list),
    "an entry of a dict": (into(setting("h")), dict),
    "of an OrderedDict": (into(setting("h")), OrderedDict),
    "of a UserDict": (into(setting("h")), UserDict),
    "of a defaultdict": (into(setting("h")), lambda: defaultdict(list)),
    "update": (into(lambda given, h: given.update(h=h)), dict),
    "update by a dict": (into(lambda given, h: given.update({"h": {"h": h}})), dict),
    "setdefault": (into(lambda given, h: given.setdefault("h", h)), dict),
    "|=": (into(merging), dict),
    "a field": (into(assigning), lambda: State(X)),
    "nested": (into(lambda given, h: given["l"][0].append(h)), lambda: {"l": [[]]}),
    "taken out and nested": (into(lambda given, h: given.pop("l").append(h)), lambda: {"l": []}),
    "a width": (into(lambda given, h: given.append(h.shape[1])), list),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_is_left_in_an_input_is_interface(name: str) -> None:
    body, given = PINNED[name]
    model = net(body)
    traced = fxgrow.trace(model, (X, given()))
    assert agree(found(model, lambda: (X, given())), found(traced, lambda: (X, given())))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind is fxgrow.Kind.OUTPUT


@pytest.mark.parametrize("name", ["append", "an entry of a dict", "a field", "a width", "nested"])
def test_verify_sees_what_is_left_in_an_input(name: str) -> None:
    """Wider by hand, with zeros: the output is the same, what is left is not."""
    body, given = PINNED[name]
    model, wider = net(body), net(body)
    a, b = nn.Linear(4, 9).double(), nn.Linear(9, 2).double()
    with torch.no_grad():
        a.weight[8:], b.weight[:, 8:] = 0, 0
        a.weight[:8], a.bias[:8], a.bias[8:] = wider.a.weight, wider.a.bias, 0  # type: ignore[union-attr,assignment]  # a Net
        b.weight[:, :8], b.bias[:] = wider.b.weight, wider.b.bias  # type: ignore[union-attr,assignment]  # a Net
    wider.a, wider.b = a, b
    assert torch.allclose(model(X, given()), wider(X, given()))
    assert not fxgrow.verify(model, wider, example_inputs=(X, given())).held
    assert fxgrow.verify(model, net(body), example_inputs=(X, given())).held


UNFOLLOWED: dict[str, tuple[Body, Callable[[], Any]]] = {
    "a function of the user's": (into(lambda given, h: push(given, h)), list),
    "a list that a function hands back": (into(lambda given, h: handed_back(given).append(h)), list),
    "a method of the user's": (into(lambda given, h: given.append(h)), Twice),
    "a class of its own": (into(setting("hidden")), lambda: Classified(logits=X)),
    "an object": (into(assigning), Settings),
    "a namespace": (into(assigning), lambda: SimpleNamespace(n=1)),
    "a dict in itself": (into(lambda given, h: given.update(given=given)), dict),
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_writes_that_cannot_be_followed_are_refused_by_name(name: str) -> None:
    body, given = UNFOLLOWED[name]
    traced = fxgrow.trace(net(body), (X, given()))
    with pytest.raises(fxgrow.FxgrowError, match="among the inputs in a way that cannot be followed") as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind is fxgrow.Kind.UNSUPPORTED_MODEL
    assert "layers = [*layers, y]" in str(caught.value)


def test_a_place_that_an_input_picks_is_refused() -> None:
    def forward(s: Any, xs: Any, k: int) -> Tensor:
        xs.insert(k, core(s, xs[0]))
        y: Tensor = xs[1]
        return y

    traced = fxgrow.trace(net(forward), ([X, X], 1))
    with pytest.raises(fxgrow.FxgrowError, match="cannot be followed"):
        fxgrow.widen(traced, "a")


class Hidden(Net):
    """It writes where torch.fx does not see it."""

    def forward(self, x: Tensor, given: Any) -> Tensor:
        y = core(self, x)
        if not isinstance(given, fx.Proxy):
            given.append(y)
        return y


class HiddenNumber(Net):
    """It counts in an object that it is given."""

    def forward(self, x: Tensor, given: Any) -> Tensor:
        if not isinstance(given, fx.Proxy):
            given.calls = 2
        return core(self, x)


@pytest.mark.parametrize(("kind", "given"), [(Hidden, list), (HiddenNumber, Settings)])
def test_a_trace_that_loses_a_write_is_refused(kind: type[Net], given: Callable[[], Any]) -> None:
    mine = given()
    with pytest.raises(fxgrow.UsageError, match="after the call") as caught:
        fxgrow.trace(kind().double().eval(), (X, mine))
    assert caught.value.kind is fxgrow.Kind.NOT_TRACEABLE
    assert "feats.append(y)" in str(caught.value)
    assert not mine if isinstance(mine, list) else mine.calls == 1


def test_a_write_in_the_other_mode_arrives_too() -> None:
    def forward(s: Any, x: Tensor, given: Any) -> Tensor:
        y = core(s, x)
        given += [y] if s.training else [x]
        return y

    model = net(forward)
    traced = fxgrow.trace(model, (X, []))
    for training in (False, True) if traced.meta.get("fxgrow_modes") is None else (False,):
        assert agree(found(model.train(training), lambda: (X, [])), found(traced.train(training), lambda: (X, [])))


# -- what is left ---------------------------------------------------------------------------------------------------


def test_contents_name_containers_and_leaves() -> None:
    shared = [1]
    tree: Any = {"a": shared, "b": State(2, h=shared), "c": SimpleNamespace(n=(3,))}
    tree["b"].more = 4
    assert contents(tree, "t", lambda leaf: leaf) == {
        "t": "dict of ['a'], ['b'], ['c']",
        "t['a']": "list of [0]",
        "t['a'][0]": 1,
        "t['b']": "State of .x, .n, .h, .more",
        "t['b'].x": 2,
        "t['b'].n": 1,
        "t['b'].h": "the same object as t['a']",
        "t['b'].more": 4,
        "t['c']": "SimpleNamespace of .n",
        "t['c'].n": "tuple of [0]",
        "t['c'].n[0]": 3,
    }
    tree["self"] = tree
    assert contents(tree, "t", lambda leaf: leaf)["t['self']"] == "the same object as t"
    assert len(mutable(tree)) == 4
    assert changes({"a": 1, "b": X}, {"a": 2, "c": X}) == {"a": 2, "b": "nothing", "c": X}


def test_objects_are_copied_for_each_call() -> None:
    mine = Settings()
    theirs = copied(mine)
    theirs.calls = 2
    assert mine.calls == 1
    assert copied(X) is X
    assert not any(map(is_object, (X, nn.ReLU(), Settings, len, 3, "text", torch.Generator())))
