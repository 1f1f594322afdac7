"""NumPy functions in traced code: calls on sizes become nodes. This module does not import NumPy."""

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
"""Operators by the name of the function that NumPy calls for a NumPy number on the left: `np.float64(2) * x`."""
_OF_LISTS = ("prod", "sum", "max", "min", "amax", "amin", "mean", "median", "std", "var")


def of_lists() -> dict[Any, str]:
    """Return the NumPy functions that may be called on a list of sizes, with their names; empty if NumPy is not
    imported.

    NumPy would read the proxies in the list as numbers, so the tracer wraps these functions.
    """
    numpy = sys.modules.get("numpy")
    found = {name: getattr(numpy, name, None) for name in _OF_LISTS} if numpy is not None else {}
    return {function: name for name, function in found.items() if callable(function)}


def namespaces() -> list[Any]:
    """Return the modules in which user code finds these functions: NumPy, if it has been imported."""
    numpy = sys.modules.get("numpy")
    return [] if numpy is None else [numpy]


def plain_number(value: Any) -> Any:
    """Convert a NumPy number to a Python number; return any other value unchanged."""
    return value.item() if is_number(value) else value


def is_number(value: Any) -> bool:
    """Whether a value is a NumPy number."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.number | numpy.bool_)


def is_array(value: Any) -> bool:
    """Whether a value is a NumPy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def name_of(function: Any, method: str, kwargs: Mapping[str, Any]) -> str:
    """Return the name of a NumPy function. It is empty if `numpy` has no function of that name, or if the call writes
    to `out=` or is a ufunc method such as `reduce`."""
    name = str(getattr(function, "__name__", ""))
    found = getattr(sys.modules.get("numpy"), name, None) is function
    return name if found and method == "__call__" and kwargs.get("out") is None else ""
