"""Faults between the user's module and a proof are noticed, and nothing is noticed where none is planted."""

from __future__ import annotations

import pytest

from .mutants.modules import FAULTS, SHOWN_BY, noticed

FIRST = {fault: program for program, faults in SHOWN_BY.items() for fault in faults}


@pytest.mark.parametrize("name", FAULTS)
def test_a_look_that_is_switched_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    assert noticed(FIRST[name])


def test_nothing_is_noticed_without_a_fault() -> None:
    assert noticed() == ""
