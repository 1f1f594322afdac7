"""NumPy while a model is traced: functions of sizes become nodes. NumPy is not imported for it."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "power": operator.pow,
    "matmul": operator.matmul,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
}
"""Functions that NumPy calls where a number of its own stands on the left of an operator: `np.float64(2) * x`."""
_OF_LISTS = ("prod", "sum", "max", "min", "amax", "amin", "mean", "median", "std", "var")


def of_lists() -> dict[Any, str]:
    """The functions that may be given a list of sizes, which NumPy would read, and their names; none if nobody has
    imported NumPy."""
    numpy = sys.modules.get("numpy")
    found = {name: getattr(numpy, name, None) for name in _OF_LISTS} if numpy is not None else {}
    return {function: name for name, function in found.items() if callable(function)}


def namespaces() -> list[Any]:
    """Where user code finds them."""
    numpy = sys.modules.get("numpy")
    return [] if numpy is None else [numpy]


def plain_number(value: Any) -> Any:
    """A number of Python's in the place of one of NumPy's; anything else as it is."""
    return value.item() if is_number(value) else value


def is_number(value: Any) -> bool:
    """Whether a value is a number of NumPy's."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.number | numpy.bool_)


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy's."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def name_of(function: Any, method: str, kwargs: Mapping[str, Any]) -> str:
    """The name of a function of NumPy's; empty if it has none there, or does not return what it computes."""
    name = str(getattr(function, "__name__", ""))
    found = getattr(sys.modules.get("numpy"), name, None) is function
    return name if found and method == "__call__" and kwargs.get("out") is None else ""
