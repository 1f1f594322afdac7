"""Faults between the user's module and a proof, and of what keeps objects, threads and the process as they were, are
noticed, and nothing is noticed where none is planted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import _symbolic_trace

from . import safeguards
from .fx_patches import fx_put_back
from .modules import FAULTS, SHOWN_BY, noticed
from .programs import first_wrong

LATER = {"twins call what they are made from"} if torch.__version__.startswith("2.11.") else set()
"""Faults that torch 2.11 does not show: it runs compiled layers inside a model as eager code."""
FIRST = {fault: program for program, faults in SHOWN_BY.items() for fault in faults}


@pytest.mark.parametrize("name", FAULTS)
def test_a_look_that_is_switched_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in LATER:
        pytest.skip("compiled layers inside a model are not compiled by this torch")
    FAULTS[name](monkeypatch)
    assert noticed(FIRST[name])


def test_nothing_is_noticed_without_a_fault() -> None:
    assert noticed() == ""


SAFEGUARDS = {fault: program for program, faults in safeguards.SHOWN_BY.items() for fault in faults}


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_a_safeguard_that_is_switched_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fx_put_back():
        safeguards.FAULTS[name](monkeypatch)
        assert first_wrong({name: safeguards.PROGRAMS[SAFEGUARDS[name]]})


def test_no_patch_of_torch_fx_is_left_by_a_planted_fault() -> None:
    arange: Any = torch.arange
    with fx_put_back():
        wrapped = _symbolic_trace._create_wrapped_func(arange)
        _symbolic_trace._Patcher().patch(vars(torch), "arange", wrapped)
        assert torch.arange is wrapped
    assert torch.arange is arange


@pytest.mark.parametrize("name", safeguards.PROGRAMS)
def test_nothing_is_noticed_with_all_safeguards(name: str) -> None:
    assert first_wrong({name: safeguards.PROGRAMS[name]}) == ""
