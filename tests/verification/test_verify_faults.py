"""Faults planted in certificates are noticed, and nothing is noticed where none is planted."""

from __future__ import annotations

import pytest

from ..mutants.certificates import FAULTS, noticed


@pytest.mark.parametrize("name", FAULTS)
def test_a_certificate_that_cannot_say_no_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    assert noticed()


def test_nothing_is_noticed_without_a_fault() -> None:
    assert noticed() == ""
