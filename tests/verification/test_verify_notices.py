"""Verification notices what could hide a difference: masks, NaN, rows that no probe reads, results in other forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import UsageError
from fxgrow.verification.compare import distance, flat

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
SMALL = torch.finfo(torch.float32).min


@dataclass
class Result:
    """What some models return."""

    logits: Tensor


class Two(nn.Module):
    """Two layers, and a function of what they compute."""

    def __init__(self, end: Callable[[Tensor], Any], *, factor: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.end, self.factor = end, factor

    def forward(self, x: Tensor) -> Any:
        return self.end(self.b(torch.relu(self.a(x))) * self.factor)


def masked(value: float) -> Callable[[Tensor], Tensor]:
    return lambda y: torch.cat([y, torch.full_like(y[:, :2], value)], 1)


ENDS: dict[str, Callable[[Tensor], Any]] = {
    "a mask of -1e9": masked(-1e9),
    "a mask of -1e4": masked(-1e4),
    "the smallest number": masked(SMALL),
    "a mask that is added": lambda y: y + torch.tensor([0.0, -1e9, -1e9], dtype=y.dtype),
    "two masks": lambda y: torch.cat([y, torch.full_like(y, -1e9), torch.full_like(y, SMALL)], 1),
    "a mask beside zeros": lambda y: torch.cat([y * 0, torch.full_like(y, -1e9), y], 1),
    "a data class": Result,
    "a data class in a dictionary": lambda y: {"n": y.detach() * 0 + 1, "result": Result(y)},
    "complex numbers": lambda y: torch.complex(torch.ones_like(y), y),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_difference_is_not_hidden(end: str) -> None:
    before = Two(ENDS[end])
    assert fxgrow.verify(before, Two(ENDS[end]), example_inputs=(X,), training=False).held
    assert not fxgrow.verify(before, Two(ENDS[end], factor=1 + 1e-4), example_inputs=(X,), training=False).held


@pytest.mark.parametrize("large", [1.0, 1e3, 1e6])
def test_an_error_is_relative_to_the_largest_entry_and_to_a_mask_itself(large: float) -> None:
    a = torch.tensor([1.0, 0.5, -1e-12]) * large
    assert distance(a, a + torch.tensor([0.0, 0.0, 1e-3]) * large) == pytest.approx(1e-3)
    mask = torch.tensor([-1e9, -1e9]) * large
    both = torch.cat([a, mask])
    assert distance(both, torch.cat([a, mask * (1 + 1e-3)])) == pytest.approx(1e-3, rel=1e-3)
    assert distance(both, torch.cat([a * (1 + 1e-3), mask])) == pytest.approx(1e-3, rel=1e-3)


def test_where_nothing_is_finite_nothing_is_certified() -> None:
    with pytest.raises(UsageError, match="output is nowhere finite on any probe, so nothing can be compared"):
        fxgrow.verify(Two(lambda y: y * float("nan")), Two(lambda y: y.sin() * float("nan")), example_inputs=(X,))


@pytest.mark.parametrize("end", [lambda y: None, lambda y: (), lambda y: "text"], ids=["nothing", "a tuple", "a text"])
def test_without_tensors_nothing_is_certified(end: Callable[[Tensor], Any]) -> None:
    with pytest.raises(UsageError, match="the models return no tensors"):
        fxgrow.verify(Two(end), Two(end), example_inputs=(X,))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (lambda y: {"y": y, "tag": "old"}, lambda y: {"y": y, "tag": "new"}, r"output\['tag'\] is 'old' before"),
        (lambda y: (y, None), lambda y: (y, y), r"different tensors: only one returns output\[1\]"),
    ],
    ids=["texts", "None"],
)
def test_what_is_no_tensor_has_to_be_the_same(one: Any, other: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fxgrow.verify(Two(one), Two(other), example_inputs=(X,))


class Words(nn.Module):
    """A table of fifty rows and a reader; beside it, numbers that are looked up nowhere."""

    def __init__(self, fault: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.table.weight[40:] += fault

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        y: Tensor = self.last(self.table(x[:, :2])) * times[:, :2, None]
        return y


def test_numbers_of_all_rows_of_a_table_are_tried() -> None:
    zeros = torch.zeros(4, 3, dtype=torch.int64)
    assert not fxgrow.verify(Words(), Words(0.1), example_inputs=(zeros, zeros + 3), training=False).held
    certificate = fxgrow.verify(Words(), Words(), example_inputs=(zeros, zeros + 3), training=False)
    assert certificate.held
    assert certificate.notes == ("input 1: integers from 0 to 3, as in the example",)


def test_a_growth_of_a_table_is_watched_where_only_its_shape_is_known() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.table(x))
            return y

    traced = fxgrow.trace(Rows(), (torch.zeros(4, 6, dtype=torch.int64),))
    grown = fxgrow.widen(traced, "table")
    assert fxgrow.verify(traced, grown).held
    with torch.no_grad():
        grown.get_parameter("table.weight")[40:, 9] += 100
    assert not fxgrow.verify(traced, grown).held
    assert fxgrow.bisect(traced, grown) is not None


def test_casts_in_a_graph_do_not_stand_in_the_way_of_float64() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(torch.relu(self.a(x.float())).to(torch.float32).softmax(-1, dtype=torch.float32))
            return y

    traced = fxgrow.trace(Cast(), (X,))
    certificate = fxgrow.verify(traced, fxgrow.widen(traced, "a", scheme="net2net"))
    assert certificate.held
    cast = Cast()  # of modules that are not traced the casts are raised, too
    assert fxgrow.verify(cast, cast, example_inputs=(X,)).held


class Raises(nn.Module):
    """Fails in a way of its own."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.a, self.error = nn.Linear(4, 4), error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error("not so")


@pytest.mark.parametrize("error", [IndexError, AssertionError, TypeError, KeyError, AttributeError])
def test_whatever_a_model_raises_is_told_in_one_line(error: type[Exception]) -> None:
    with pytest.raises(UsageError, match=f"a model cannot run on these inputs: {error.__name__}: .?not so"):
        fxgrow.verify(Raises(error), Raises(error), example_inputs=(X,))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"int is not an nn\.Module"):
        fxgrow.verify(3, Two(lambda y: y))  # type: ignore[arg-type]  # that is the point


def test_names_of_fields_are_names_of_outputs() -> None:
    assert flat({"r": Result(X)}).keys() == {"output['r'].logits"}
