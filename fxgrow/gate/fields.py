"""Reads the tables of a gate file key by key; errors name the position of unknown keys, wrong types and large
values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import FxgrowError, Kind, usage

MOST = 1000
"""The largest number of entries of a list or a table."""
LONGEST = 1000
"""The largest number of characters of a string."""
LARGEST = 2**40
"""The largest integer, for seeds and widths."""
Field = Callable[[Any, str], Any]


def bad(where: str, what: str, hint: str = "docs/gate.md lists every key with its type") -> FxgrowError:
    """Return the error for a position in a gate file."""
    return usage(Kind.BAD_OPTION, f"gate file, {where}: {what}", hint=hint)


def short(value: object) -> str:
    """Format a value so that it fits in a line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def table(data: Any, where: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Read the values of a table's known keys.

    Raises:
        UsageError: the value is not a table, or it has an unknown key or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise bad(where, f"{short(data)} is not a table")
    for key in data:
        if key not in fields:
            near = get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(fields)}"
            raise bad(where, f"unknown key {short(key)}", hint)
    return {key: fields[key](value, f"{where}.{key}") for key, value in data.items()}


def text(value: Any, where: str) -> str:
    """Read a non-empty printable string of limited length."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        raise bad(where, f"{short(value)} is not a non-empty printable string")
    return value


def flag(value: Any, where: str) -> bool:
    """Read a boolean value."""
    if not isinstance(value, bool):
        raise bad(where, f"{short(value)} is not true or false")
    return value


def whole(value: Any, where: str) -> int:
    """Read an integer that can be a seed or a width."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise bad(where, f"{short(value)} is not an integer from 0 to {LARGEST}")
    return value


def number(value: Any, where: str) -> float:
    """Read a finite positive number."""
    if type(value) not in (int, float) or not 0 < value < LARGEST or not math.isfinite(value):
        raise bad(where, f"{short(value)} is not a positive number")
    return float(value)


def tolerance(value: Any, where: str) -> float:
    """Read a relative tolerance, a positive number below 1."""
    found = number(value, where)
    if found >= 1:
        raise bad(where, f"{short(value)} is not a tolerance", "use a relative error below 1 (100 %), for example 1e-6")
    return found


def several(field: Field) -> Field:
    """Return a reader for a list of such values, or a single one."""

    def read(value: Any, where: str) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not 0 < len(values) <= MOST:
            raise bad(where, f"it has {len(values)} entries")
        return tuple(field(v, f"{where}[{k}]" if isinstance(value, list) else where) for k, v in enumerate(values))

    return read


def mapping(field: Field) -> Field:
    """Return a reader for a table from names to such values."""

    def read(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not 0 < len(value) <= MOST:
            raise bad(where, f"{short(value)} is not a table of names")
        return {text(key, where): field(v, f"{where}.{key}") for key, v in value.items()}

    return read


def either(first: Field, second: Field, is_first: Callable[[Any], bool]) -> Field:
    """Return a reader that uses `first` or `second`, depending on the value."""
    return lambda value, where: (first if is_first(value) else second)(value, where)


def inside(folder: Path, value: str, where: str, *, anywhere: bool) -> Path:
    """Resolve a path and check that it lies in the folder of the gate file, unless `anywhere` is set.

    Raises:
        UsageError: the path, with links resolved, lies outside the folder.
    """
    root = folder.resolve()
    path = (root / value).resolve()
    if not anywhere and (Path(value).is_absolute() or not path.is_relative_to(root)):
        raise bad(
            where,
            f"{short(value)} is outside the folder of the gate file",
            "use a relative path inside it, or --allow-outside if you trust the file",
        )
    return path
