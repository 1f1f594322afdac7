"""Every planted fault is caught, and nothing is caught where no fault is planted."""

from __future__ import annotations

import pytest

from fxgrow.rules import RULES

from .catalogue import CATALOGUE
from .rules import EXCEPT, Fault, caught, faults
from .run import fate
from .subjects import SUBJECTS
from .watch import breaches


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_fault_in_a_grown_model_is_caught(name: str) -> None:
    assert fate(name).noticed


@pytest.mark.parametrize("name", faults())
def test_a_wrong_rule_is_caught(name: str) -> None:
    assert fate(name).noticed


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_law_is_broken_without_a_fault(name: str) -> None:
    assert [str(found) for found in breaches([name], others=False)] == []


def test_what_is_true_of_an_operator_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(Fault("it is odd", ("aten::asinh",)), monkeypatch) == ""


def test_no_two_faults_have_one_name() -> None:
    assert CATALOGUE.keys().isdisjoint(faults())


def test_a_fault_names_subjects_that_there_are() -> None:
    assert {name for _, first in CATALOGUE.values() for name in first} <= SUBJECTS.keys()


def test_every_rule_is_made_wrong() -> None:
    told = {name for fault in faults().values() for name in fault.operators}
    assert RULES.keys() - told == {name for name, lies in EXCEPT.items() if not lies}
