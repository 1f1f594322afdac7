"""The examples in the docstrings of the public functions and passes run as they stand."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest

import fxgrow
import fxgrow.passes

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(fxgrow, name)
    for name in (
        *("analyse", "apply", "bisect", "deepen", "grow", "inspect", "plan", "plan_deepen", "plan_grow", "plan_widen"),
        *("trace", "verify", "widen"),
    )
}
PASSES: dict[str, Callable[..., Any]] = {
    name: getattr(fxgrow.passes, name) for name in fxgrow.passes.__all__ if name not in ("Pass", "Width")
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *PASSES])
def test_the_example_in_a_docstring_runs(name: str) -> None:
    thing = {**FUNCTIONS, **PASSES}[name]
    test = doctest.DocTestParser().get_doctest(thing.__doc__ or "", {}, name, None, None)
    assert test.examples
    found: list[str] = []
    result = doctest.DocTestRunner().run(test, out=found.append)
    assert result.failed == 0, "".join(found)
