"""What users import for rules of their own and for their tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fxgrow
import fxgrow.rules
import fxgrow.testing
from fxgrow.testing import laws, strategies

WITHOUT_HYPOTHESIS = """
import sys
sys.modules["hypothesis"] = sys.modules["hypothesis.strategies"] = None
from fxgrow.testing import assert_function_preserved, check_rule
import fxgrow.testing
try:
    fxgrow.testing.strategies
except Exception as error:
    print(error)
"""


def test_rules_and_testing_have_all_names_that_they_list() -> None:
    for module in (fxgrow.rules, fxgrow.testing):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_what_contributing_shows_is_what_fxgrow_uses() -> None:
    assert fxgrow.register_rule is fxgrow.rules.register
    assert fxgrow.testing.check_rule is laws.check_rule
    assert fxgrow.testing.strategies is strategies


def test_an_unknown_name_of_testing_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'fxgrow.testing' has no attribute 'strategy'"):
        _ = fxgrow.testing.strategy


def test_testing_works_without_hypothesis_but_for_its_strategies() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_HYPOTHESIS], capture_output=True, text=True, check=True, timeout=300
    )
    assert "needs hypothesis, which is not installed" in run.stdout
    assert "pip install 'fxgrow[testing]'" in run.stdout
