"""Every scheme on every axis of every model of the catalogue: the same function, or refused by name."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import fx

import fxgrow
from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.coverage.combinations import SCHEMES, combine
from fxgrow.models_zoo.coverage.findings import Row
from fxgrow.models_zoo.coverage.schemes import gaps, kinds, left_out, rows, table, violations
from fxgrow.models_zoo.coverage.subjects import TORCHVISION, subjects
from fxgrow.verification.certificate import FLOAT64_BOUND

INTERFACE = {"OUTPUT", "INPUT"}
REFUSED_IN_TORCHVISION = {"shufflenet_v2_x1_0": {"OUTPUT", "FIXED"}}
"""Kinds of refusal by model; all others lose their output layer only."""
LONG = ("maxvit_t", "mvit_v2_s")
"""Models that take minutes: for `make zoo`."""


@cache
def row_of(name: str) -> Row:
    """All schemes on one model of the zoo, growths together where one plan can hold them; shared by the tests below."""
    (row,) = rows([name])
    return row


@pytest.mark.parametrize("name", ZOO)
def test_every_scheme_keeps_the_function_of_a_zoo_model(name: str) -> None:
    row = row_of(name)
    assert list(row.cells) == list(SCHEMES)
    for scheme, cell in row.cells.items():
        assert not cell.broken, scheme
        assert not cell.apart, scheme
        assert cell.eval_error <= FLOAT64_BOUND
        assert cell.growths or cell.refused
        if cell.growths and any(not growth.eval_only for growth in cell.growths):
            assert cell.train_error is not None
            assert cell.train_error <= FLOAT64_BOUND


@pytest.mark.parametrize("name", ZOO)
def test_auto_grows_what_any_scheme_grows(name: str) -> None:
    assert left_out(row_of(name)) == []


@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_model_grows_everywhere_but_at_its_interface_unless_it_is_there_to_show_a_refusal(name: str) -> None:
    row = row_of(name)
    never = {refusal.kind.name for refusal in row.never()}
    if ZOO[name].refuses:
        assert never | {refusal.kind.name for refusal in row.refused("r2r")}
    else:
        assert row.growable
        assert never <= INTERFACE


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if not entry.refuses])
def test_auto_keeps_the_function_in_every_growth_by_itself(name: str) -> None:
    (row,) = rows([name], ["auto"], each=True)
    assert violations(row) == []


@pytest.mark.parametrize("name", [name for name in TORCHVISION if name not in LONG])
def test_torchvision_model_grows_everywhere_at_once(name: str) -> None:
    (row,) = rows([f"torchvision.{name}"], ["auto"])
    assert violations(row) == []
    assert {refusal.kind.name for refusal in row.never()} == REFUSED_IN_TORCHVISION.get(name, {"OUTPUT"})
    assert not row.cells["auto"].apart


def test_one_wrong_growth_is_found_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fxgrow.apply

    def wrong(plan: fxgrow.Plan, gm: fx.GraphModule) -> fx.GraphModule:
        grown = right(plan, gm)
        if any("fc2.bias" in edit.names for edit in plan.tensors):
            with torch.no_grad():
                grown.get_parameter("fc2.bias")[0] += 1e-6
        return grown

    monkeypatch.setattr(fxgrow, "apply", wrong)
    subject = next(subjects(["mlp"]))
    row = combine("mlp", *subject.made(), ["r2r", "zero"])
    assert [len(cell.growths) for cell in row.cells.values()] == [2, 2]
    assert [text.split()[0] for cell in row.cells.values() for text in cell.broken] == ["fc2", "fc2"]
    assert len(violations(row)) == 2


def test_what_auto_leaves_out_is_a_violation() -> None:
    (row,) = rows(["pre_norm_encoder"], ["mean", "r2r"])
    row.cells["auto"] = row.cells.pop("r2r")
    (text,) = violations(row)
    assert text.startswith("auto cannot grow ")
    assert "mean" in text


def test_the_tables_say_what_each_scheme_can_grow_and_why_not() -> None:
    found = [row_of("pre_norm_encoder"), row_of("refuse_softmax"), row_of("refuse_window_pool")]
    shares, missing = table(found).splitlines(), gaps(found).splitlines()
    assert shares[0] == f"| model | axes | {' | '.join(SCHEMES)} | never | eval error | training error |"
    assert shares[2].startswith("| pre_norm_encoder | 7 | 86 % | 100 % | 86 % | 86 % | 100 % | 100 % | OUTPUT 1 | ")
    assert shares[4] == "| refuse_window_pool | 0 | – | – | – | – | – | – | OUTPUT 1, WINDOW 1 | – | – |"
    assert missing[2:] == [
        "| pre_norm_encoder | NORM 1 | – | NORM 1 | NORM 1 | – |",
        "| refuse_softmax | SOFTMAX 1 | – | SOFTMAX 1 | SOFTMAX 1 | SOFTMAX 1 |",
    ]
    assert kinds([]) == "–"
