"""For each reason of refusal, the refused growth done by hand: the function, or the interface, does break.

Where the reason is one operation, taking it out of both models makes the same surgery harmless: so it is the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow import Kind
from fxgrow.dims.axis import atoms
from fxgrow.schemes import Assignment, Place, Problem, State

from ..models.refused import DecidedByWidth, InnerJoin, KeptState, KeptWidth, LastChannel, Plain, Squeezed, prepared
from ..proof.by_hand import (
    BROKEN,
    COLUMNS,
    DEAD_COLUMNS,
    DEAD_ROWS,
    NEW,
    ROWS,
    SAME,
    Surgery,
    effect,
    grown,
    read,
    written,
)


@dataclass(frozen=True)
class Case:
    """A refused growth and what it would do: a text is part of the error or of the change of shape."""

    kind: Kind
    model: str | type[nn.Module]
    surgery: Surgery
    breaks: str = ""
    without: str = ""
    """The module or function that, replaced by the identity, no longer stands in the way."""
    layer: str = "conv1"
    scheme: str = "auto"
    """By which the growth is refused; where another one grows the layer, it has other new units than the surgery."""
    skip: Literal["couple", "reshape"] = "couple"


CONVS = {**written("conv1"), **read("conv2")}
LINEARS = {**written("fc1"), **read("fc2")}
CASES = {
    "layer norm": Case(
        Kind.NORM,
        "refuse_norm",
        Surgery({**LINEARS, **written("norm")}, {"norm.normalized_shape": (16 + NEW,)}),
        without="norm",
        layer="fc1",
        scheme="r2r",
    ),
    "layer norm, channels last": Case(
        Kind.NORM,
        "refuse_norm_channels_last",
        Surgery({**CONVS, **written("norm")}, {"norm.normalized_shape": (8 + NEW,)}),
        without="norm",
        scheme="r2r",
    ),
    "softmax": Case(
        Kind.SOFTMAX, "refuse_softmax", Surgery(CONVS), without="torch.nn.functional.softmax", scheme="r2r"
    ),
    "mean": Case(Kind.STATISTIC, "refuse_statistic_mean", Surgery(written("conv1"))),
    "max": Case(Kind.STATISTIC, "refuse_statistic_max", Surgery(written("conv1")), scheme="r2r"),
    "argmax": Case(Kind.STATISTIC, "refuse_statistic_argmax", Surgery(written("conv1"))),
    "graph input": Case(
        Kind.INPUT,
        "refuse_interface_input",
        Surgery({**written("conv2"), **read("head")}),
        breaks="error: The size of tensor a (6) must match the size of tensor b (10)",
        layer="conv2",
    ),
    "graph output": Case(
        Kind.OUTPUT,
        "refuse_interface_output",
        Surgery({**written("conv2"), **read("fc")}),
        breaks="interface: (5, 8, 8, 8) became (5, 12, 8, 8)",
        layer="conv2",
    ),
    "last layer": Case(
        Kind.OUTPUT, "mlp", Surgery(written("head")), breaks="interface: (5, 10) became (5, 14)", layer="head"
    ),
    "fft": Case(Kind.STATISTIC, "refuse_spectrum", Surgery(CONVS), without="torch.fft.fft"),
    "custom operator": Case(
        Kind.UNKNOWN_OP, "refuse_unknown_operator", Surgery({**written("fc1"), **read("fc2")}), layer="fc1"
    ),
    "group norm over a seam": Case(
        Kind.NORM,
        "refuse_straddling_norm",
        Surgery({**written("left", "norm"), **read("head")}, {"norm.num_channels": 16 + NEW}),
        without="norm",
        layer="left",
    ),
    "groups of two sizes": Case(
        Kind.NON_ALIGNED,
        "refuse_regrouped",
        Surgery({**written("conv1"), **read("fours", "threes")}),
        breaks="error: Given",
        layer="conv1",
    ),
    "view over a seam": Case(
        Kind.WINDOW,
        "refuse_straddling_view",
        Surgery(written("left")),
        breaks="error: shape '[5, 3, 4, 8, 8]' is invalid",
        layer="left",
    ),
    "pooling window": Case(
        Kind.WINDOW, "refuse_window_pool", Surgery({**written("conv1"), "conv2.weight": COLUMNS}), breaks="error: Given"
    ),
    "local response": Case(Kind.WINDOW, "refuse_window_lrn", Surgery(CONVS), without="norm"),
    "broadcast": Case(
        Kind.BROADCAST,
        "refuse_broadcast",
        Surgery(written("attend")),
        breaks="error: The size of tensor a (8) must match the size of tensor b (5)",
        layer="attend",
    ),
    "list of channels": Case(
        Kind.INDEX, "refuse_index_list", Surgery(CONVS), breaks="to have 7 channels, but got 3 channels"
    ),
    "buffer of channels": Case(
        Kind.INDEX, "refuse_index_buffer", Surgery(CONVS), breaks="to have 7 channels, but got 3 channels"
    ),
    "input of features": Case(
        Kind.INDEX, "refuse_index_input", Surgery(LINEARS), breaks="mat1 and mat2 shapes", layer="fc1"
    ),
    "last channel": Case(Kind.INDEX, LastChannel, Surgery(written("conv1"))),
    "numbers that go on": Case(Kind.CONSTANT, "refuse_constant", Surgery(CONVS), without="torch.arange"),
    "a lasting tensor written through a view": Case(
        Kind.ALIAS, KeptState, Surgery({**CONVS, "gain": ROWS}), without="torch.Tensor.mul_"
    ),
    "no reader": Case(Kind.NO_PROOF, "refuse_no_reader", Surgery(written("conv1"))),
    "squeezed": Case(
        Kind.FIXED, Squeezed, Surgery(written("conv1")), breaks="interface: (5, 8, 4) became (5, 5, 8, 4)"
    ),
    "width kept by a module": Case(Kind.INEXPRESSIBLE, KeptWidth, Surgery(CONVS), breaks="error: Given groups=1"),
    "decided by the width": Case(Kind.DECIDED, DecidedByWidth, Surgery(CONVS)),
    "join out of reach": Case(
        Kind.NOT_A_JOIN,
        InnerJoin,
        Surgery({**written("conv2"), **read("head")}),
        breaks="error: The size of tensor a (8) must match the size of tensor b (12)",
        layer="conv2",
        skip="reshape",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_growth_is_refused_and_would_break_the_model(name: str) -> None:
    case = CASES[name]
    model, inputs = prepared(case.model)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(model, inputs), node=case.layer, by=NEW, skip=case.skip, scheme=case.scheme)
    assert caught.value.kind is case.kind
    found = effect(model, grown(model, case.surgery), inputs)
    if case.breaks:
        assert isinstance(found, str)
        assert case.breaks in found
    else:
        assert isinstance(found, float)
        assert found > BROKEN


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.without])
def test_without_the_stopper_the_same_surgery_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    model, inputs = prepared(case.model)
    surgery = case.surgery
    if "." in case.without:
        monkeypatch.setattr(case.without, _first if case.without != "torch.arange" else _zeros)
    else:
        setattr(model, case.without, nn.Identity())
        surgery = Surgery({k: v for k, v in surgery.tensors.items() if not k.startswith(f"{case.without}.")})
    found = effect(model, grown(model, surgery), inputs)
    assert isinstance(found, float)
    assert found < SAME


def _first(x: Tensor, *_: object, **__: object) -> Tensor:
    return x


def _zeros(size: int) -> Tensor:
    return torch.zeros(size)


class Zeros:
    """A scheme that fills writers and readers with zeros."""

    name = "zeros"

    def choose(self, problem: Problem) -> Assignment:
        """Zero everywhere."""
        dims = problem.dims
        places = (
            Place(value.index, axis, occurrence)
            for value in dims.program.parameters.values()
            for axis, expression in enumerate(dims.resolved(value))
            for occurrence in range(sum(a in problem.sizes for a in atoms(expression)))
        )
        return dict.fromkeys(places, State.ZERO)


def test_zeros_on_both_sides_are_refused_because_they_never_learn() -> None:
    model, inputs = prepared(Plain)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(model, inputs), node="conv1", scheme=Zeros())
    assert caught.value.kind is Kind.DEAD
    dead = Surgery({"conv1.weight": DEAD_ROWS, "conv1.bias": DEAD_ROWS, "conv2.weight": DEAD_COLUMNS})
    assert effect(model, grown(model, dead), inputs) == 0
    assert _gradients(grown(model, dead), inputs) == (0, 0)
    alive = Surgery({"conv1.weight": ROWS, "conv1.bias": ROWS, "conv2.weight": DEAD_COLUMNS})
    assert _gradients(grown(model, alive), inputs)[1] > BROKEN


def _gradients(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[float, float]:
    model(*inputs).square().mean().backward()
    rows, columns = model.get_parameter("conv1.weight").grad, model.get_parameter("conv2.weight").grad
    assert rows is not None
    assert columns is not None
    return float(rows[-NEW:].abs().max()), float(columns[:, -NEW:].abs().max())


def test_every_reason_of_refusal_is_backed_by_a_forced_growth() -> None:
    refusals = {kind for kind in Kind if kind.value.startswith("FXG1")}
    backed = {case.kind for case in CASES.values()} | {Kind.DEAD}
    assert refusals - backed == {Kind.NO_AXIS}  # there is nothing to grow
