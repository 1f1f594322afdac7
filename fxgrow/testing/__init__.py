"""What the tests of users need: rules compared with their operators, and functions compared before and after a growth.

`fxgrow.testing.strategies` draws models and growths; it needs Hypothesis, and is imported when it is asked for.
"""

from importlib import import_module
from typing import Any

from ..asserting import assert_function_preserved
from .blocks import anything, positive, unit
from .laws import Operand, RuleBroken, Verdict, check_rule, examine

__all__ = [
    "Operand",
    "RuleBroken",
    "Verdict",
    "anything",
    "assert_function_preserved",
    "check_rule",
    "examine",
    "positive",
    "unit",
]


def __getattr__(name: str) -> Any:
    """Import `strategies` when it is asked for.

    Raises:
        UsageError: Hypothesis is not installed.
    """
    if name == "strategies":
        return import_module(f"{__name__}.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
