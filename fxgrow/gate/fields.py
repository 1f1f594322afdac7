"""Tables of a gate file, read key by key: unknown keys, wrong types and absurd sizes are told with their place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import FxgrowError, Kind, usage

MOST = 1000
"""Entries of a list or a table."""
LONGEST = 1000
"""Characters of a text."""
LARGEST = 2**40
"""Whole numbers: seeds, widths."""
Field = Callable[[Any, str], Any]


def bad(where: str, what: str, hint: str = "docs/gate.md lists every key with its type") -> FxgrowError:
    """The error for a place in a gate file."""
    return usage(Kind.BAD_OPTION, f"gate file, {where}: {what}", hint=hint)


def short(value: object) -> str:
    """A value as text that fits a line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def table(data: Any, where: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values of a table's known keys.

    Raises:
        UsageError: it is no table, or holds an unknown key or a value of another type.
    """
    if not isinstance(data, dict):
        raise bad(where, f"{short(data)} is no table")
    for key in data:
        if key not in fields:
            near = get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(fields)}"
            raise bad(where, f"unknown key {short(key)}", hint)
    return {key: fields[key](value, f"{where}.{key}") for key, value in data.items()}


def text(value: Any, where: str) -> str:
    """A text of some length, printable."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        raise bad(where, f"{short(value)} is no text")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise bad(where, f"{short(value)} is neither true nor false")
    return value


def whole(value: Any, where: str) -> int:
    """A whole number that can be a seed or a width."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise bad(where, f"{short(value)} is no whole number from 0 to {LARGEST}")
    return value


def number(value: Any, where: str) -> float:
    """A finite positive number."""
    if type(value) not in (int, float) or not 0 < value < LARGEST or not math.isfinite(value):
        raise bad(where, f"{short(value)} is no positive number")
    return float(value)


def tolerance(value: Any, where: str) -> float:
    """A relative error that may still be called the same."""
    found = number(value, where)
    if found >= 1:
        raise bad(where, f"{short(value)} is no tolerance", "a relative error below 1 (100 %), 1e-6 say")
    return found


def several(field: Field) -> Field:
    """A list of such values, or one of them."""

    def read(value: Any, where: str) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not 0 < len(values) <= MOST:
            raise bad(where, f"it has {len(values)} entries")
        return tuple(field(v, f"{where}[{k}]" if isinstance(value, list) else where) for k, v in enumerate(values))

    return read


def mapping(field: Field) -> Field:
    """A table from names to such values."""

    def read(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not 0 < len(value) <= MOST:
            raise bad(where, f"{short(value)} is no table of names")
        return {text(key, where): field(v, f"{where}.{key}") for key, v in value.items()}

    return read


def either(first: Field, second: Field, is_first: Callable[[Any], bool]) -> Field:
    """One of two kinds of value."""
    return lambda value, where: (first if is_first(value) else second)(value, where)


def inside(folder: Path, value: str, where: str, *, anywhere: bool) -> Path:
    """A path in the folder of the gate file, links followed; anywhere if the user said so.

    Raises:
        UsageError: it leads out of the folder.
    """
    root = folder.resolve()
    path = (root / value).resolve()
    if not anywhere and (Path(value).is_absolute() or not path.is_relative_to(root)):
        raise bad(
            where,
            f"{short(value)} leads out of the folder of the gate file",
            "a relative path inside it, or --allow-outside if you trust the file",
        )
    return path
