"""Entries of inputs that are None, and arguments that `forward` takes as `*rest` and `**more`: what the example gives
is traced, and other inputs raise an error."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
M = torch.rand(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two layers, and a factor between them that may be missing."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.run = nn.Linear(5, 8), nn.Linear(8, 3), run

    def computed(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        h = torch.tanh(self.a(x))
        if m is not None:
            h = h * m
        y: Tensor = self.b(h)
        return y

    def forward(self, *args: Any, **more: Any) -> Tensor:
        raise NotImplementedError


class One(Net):
    """One input."""

    def forward(self, batch: Any) -> Tensor:
        return self.run(self, batch)


class Rest(Net):
    """Any number of them, some by name."""

    def forward(self, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        return self.run(self, x, *rest, **more)


class OneByOne(Net):
    """The same, read entry by entry."""

    def forward(self, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        return self.run(self, x, rest, more)


@dataclass
class Batch:
    """With a field that may be None."""

    x: Tensor
    m: Tensor | None = None


class Pair(NamedTuple):
    """The same as a tuple."""

    x: Tensor
    m: Tensor | None = None


def unpacked(s: Net, batch: Any) -> Tensor:
    x, m = batch
    return s.computed(x, m)


def looped(s: Net, batch: Any) -> Tensor:
    h = s.a(batch[0])
    for m in batch[1]:
        if m is not None:
            h = h * m
    y: Tensor = s.b(h)
    return y


def written(s: Net, batch: Any) -> Tensor:
    batch["m"] = None
    return s.computed(batch["x"], batch["m"])


def written_to_an_object(s: Net, batch: Any) -> Tensor:
    batch.m = None
    return s.computed(batch.x, batch.m)


def filled(s: Net, batch: Any) -> Tensor:
    batch["m"] = batch["x"].sum(1, keepdim=True)
    return s.computed(batch["x"], batch.get("m"))


def plain(m: Any) -> dict[str, Any]:
    return {"x": X, "o": SimpleNamespace(m=m)}


def inner(m: Tensor | None) -> dict[str, Any]:
    return {"x": X, "i": [Batch(X, m)]}


def summed(s: Net, x: Tensor, rest: Any, more: Any) -> Tensor:
    return s.computed(x, sum(more.values()))


ONE: dict[str, tuple[Callable[..., Tensor], Any, Any]] = {
    "of a dict": (lambda s, b: s.computed(b["x"], b["m"]), {"x": X, "m": None}, {"x": X, "m": M}),
    "of a dict, by get": (lambda s, b: s.computed(b["x"], b.get("m")), {"x": X, "m": None}, {"x": X, "m": M}),
    "a key that is missing": (lambda s, b: s.computed(b["x"], b.get("m")), {"x": X}, {"x": X, "m": M}),
    "the same, taken out": (lambda s, b: s.computed(b["x"], b.pop("m", None)), {"x": X}, {"x": X, "m": M}),
    "of a dataclass": (lambda s, b: s.computed(b.x, b.m), Batch(X), Batch(X, M)),
    "of an object": (lambda s, b: s.computed(b["x"], b["o"].m), plain(None), plain(1)),
    "of a named tuple": (lambda s, b: s.computed(b.x, b.m), Pair(X), Pair(X, M)),
    "of a tuple": (unpacked, (X, None), (X, M)),
    "of a list": (lambda s, b: s.computed(*b), [X, None], [X, M]),
    "of a list of them": (looped, {0: X, 1: [None, None]}, {0: X, 1: [M, None]}),
    "further inside": (lambda s, b: s.computed(b["x"], b["i"][0].m), inner(None), inner(M)),
    "passed on by name": (lambda s, b: s.computed(**b), {"x": X, "m": None}, {"x": X, "m": M}),
}


@pytest.mark.parametrize("name", ONE)
def test_an_entry_that_is_none_in_the_example_is_none(name: str) -> None:
    run, given, other = ONE[name]
    model = One(run).double().eval()
    traced = fxgrow.trace(model, (copy.copy(given),))
    assert len(traced.meta["fxgrow_compared"]) == 4
    grown = fxgrow.widen(traced, "a", by=8)
    models = [traced, grown, copy.deepcopy(grown)]
    models.append(pickle.loads(pickle.dumps(traced)))
    for made in models:
        torch.testing.assert_close(made(copy.copy(given)), model(copy.copy(given)))
        with pytest.raises(fxgrow.UsageError, match=r"an entry that is read in test_inputs_opt.* is None") as error:
            made(copy.copy(other))
        assert error.value.kind is fxgrow.Kind.OTHER_DECISION
    assert "None)" in str(fxgrow.plan_widen(traced, "a", by=8))


@pytest.mark.parametrize(
    ("run", "given"),
    [(written, {"x": X, "m": M}), (written_to_an_object, Batch(X, M)), (filled, {"x": X})],
    ids=["None", "None, to an object", "a tensor"],
)
def test_what_forward_has_written_is_read(run: Callable[..., Tensor], given: Any) -> None:
    model = One(run).double().eval()
    traced = fxgrow.trace(model, (copy.copy(given),))
    torch.testing.assert_close(traced(copy.copy(given)), model(copy.copy(given)))


def changed(s: Net, x: Tensor, rest: Any, more: Any) -> Tensor:
    more["m"] = x.sum(1, keepdim=True)
    more.pop("unused")
    return s.computed(x, **more)


def items(s: Net, x: Tensor, rest: Any, more: Any) -> Tensor:
    return s.computed(x, **{name[:1]: value for name, value in more.items()})


def asked(s: Net, x: Tensor, rest: Any, more: Any) -> Tensor:
    return s.computed(x, more["m"]) if more else s.computed(x)


MORE: dict[str, tuple[Callable[..., Net], Callable[..., Tensor], Mapping[str, Any], Mapping[str, Any]]] = {
    "none": (Rest, Net.computed, {}, {"m": M}),
    "one": (Rest, Net.computed, {"m": M}, {}),
    "one that is None": (Rest, Net.computed, {"m": None}, {"m": M}),
    "one that is asked for": (OneByOne, lambda s, x, rest, more: s.computed(x, more.get("m")), {}, {"m": M}),
    "some that are changed": (OneByOne, changed, {"unused": 3}, {"unused": 3, "k": 4}),
    "none, tested": (OneByOne, asked, {}, {"m": M}),
    "some, tested": (OneByOne, asked, {"m": M}, {}),
    "each": (OneByOne, items, {"mask": M}, {}),
    "the values": (OneByOne, lambda s, x, rest, more: s.computed(x, *more.values()), {"mask": M}, {}),
    "a sum of the values": (
        OneByOne,
        summed,
        {"a": M, "b": M},
        {"a": M},
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_keyword_arguments_of_any_name_are_those_of_the_example(name: str) -> None:
    kind, run, given, other = MORE[name]
    model = kind(run).double().eval()
    traced = fxgrow.trace(model, (X,), example_kwargs=given)
    torch.testing.assert_close(traced(X, **given), model(X, **given))
    assert len(traced.meta["fxgrow_compared"]) == 4
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        traced(X, **other)
    if all(value is None for value in given.values()):
        grown = fxgrow.widen(traced, "a", by=8)
        torch.testing.assert_close(grown(X, **given), model(X, **given))
        with pytest.raises(fxgrow.UsageError, match="FXG010"):
            grown(X, **other)


@pytest.mark.parametrize(("given", "other"), [((), (M,)), ((None,), (M,)), ((M,), ())], ids=["none", "None", "one"])
def test_further_positional_arguments_are_those_of_the_example(given: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    model = Rest(Net.computed).double().eval()
    traced = fxgrow.trace(model, (X, *given))
    torch.testing.assert_close(traced(X, *given), model(X, *given))
    with pytest.raises(fxgrow.UsageError, match="FXG010"):
        traced(X, *other)


def test_arguments_of_any_number_cannot_be_fixed() -> None:
    with pytest.raises(fxgrow.UsageError, match="takes any number of arguments") as error:
        fxgrow.trace(Rest(Net.computed).double(), (X,), concrete_args={"more": {}})
    assert "example_kwargs=" in error.value.refusal.hint


def attends(s: Net, x: Tensor, mask: Any) -> Tensor:
    """Where a mask is left out, another branch runs, which the operators of the first one would take, too."""
    value = s.a(x) * 0.5 if mask is not None else s.a(x)
    y: Tensor = s.b(torch.nn.functional.scaled_dot_product_attention(x, x, value, attn_mask=mask))
    return y


def over_fields(s: Net, batch: Any) -> Tensor:
    h = s.a(batch.x)
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        h = h if field.name == "x" or value is None else h * value
    y: Tensor = s.b(h)
    return y


MASK = torch.randn(4, 4, dtype=torch.float64)
GIVEN: dict[str, tuple[type[Net], Any, tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "an argument": (Rest, lambda s, x, *rest: attends(s, x, rest[0]), (X, MASK), [(X, None)]),
    "an entry": (
        One,
        lambda s, b: attends(s, b["x"], b.get("m")),
        ({"x": X, "m": MASK},),
        [({"x": X, "m": None},), ({"x": X},)],
    ),
    "a field": (One, lambda s, b: attends(s, b.x, b.m), (Batch(X, MASK),), [(Batch(X),)]),
    "a part of a list": (One, lambda s, b: attends(s, b[0], b[1]), ([X, MASK],), [([X, None],)]),
    "an entry that the branch does not read": (
        One,
        lambda s, b: s.b(s.a(b["x"]) * (2 if b.get("m") is not None else 1)),
        ({"x": X, "m": MASK},),
        [({"x": X},)],
    ),
    "a field that a loop finds": (One, over_fields, (Batch(X),), [(Batch(X, X.sum(1, keepdim=True)),)]),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_given_must_be_given_again(name: str) -> None:
    kind, run, example, others = GIVEN[name]
    net = kind(run).double()
    traced = fxgrow.trace(net, example)
    grown = fxgrow.widen(traced, "a")
    for model in (traced, grown):
        torch.testing.assert_close(model(*example), net(*example))
        for other in others:
            assert not torch.allclose(net(*other), net(*example))
            with pytest.raises(fxgrow.UsageError, match="FXG010"):
                model(*other)


def test_inputs_that_nothing_runs_without_need_no_guard() -> None:
    def run(s: Net, x: Tensor, *rest: Any) -> Tensor:
        y: Tensor = s.b(s.a(x) + (rest[0] if rest[0] is not None else 0))
        return y.view(x.shape[0], -1)

    net = Rest(run)
    assert not fxgrow.trace(net, (X, X.sum(1, keepdim=True))).code.count("'none'")
