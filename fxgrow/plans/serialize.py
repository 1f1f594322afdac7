"""Serialisation of plans as JSON. When a plan is read, all names, types and sizes are checked."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import FxgrowError, Kind, usage
from .insertion import Copies, Factory, Layers, Link
from .layout import Chain, Grid, Leaf, Still, Woven

T = TypeVar("T")
FORMAT = "fxgrow plan"
VERSION = 1
LARGEST = 2**40
"""Largest whole number in a plan: no tensor has a larger dimension, so the plan would be damaged or hostile."""
LARGEST_FLOAT = 1e30
"""Bound of scales and noise; NaN, infinity and larger numbers are damaged or hostile."""
DEEPEST = 40
"""Largest depth of nested objects in a plan."""
_TAGS: dict[str, type] = {c.__name__: c for c in (Leaf, Still, Grid, Chain, Woven, Link, Layers, Copies)}
"""Classes of fields that may have one of several classes; the key "is" of the JSON object names the class."""


def write(plan: object) -> str:
    """Serialise a plan as JSON. The text holds names, sizes and numbers only.

    Raises:
        UsageError: the plan holds a user's function, which cannot be serialised.
    """
    return json.dumps({"format": FORMAT, "version": VERSION, "plan": _written(plan)})


def _written(thing: Any) -> Any:
    if isinstance(thing, Factory):
        raise usage(
            Kind.BAD_OPTION,
            f"the plan holds the function {thing.text}, which cannot be saved as JSON",
            hint="use one of fxgrow's blocks, or save the arguments of deepen instead of its plan",
        )
    if is_dataclass(thing):
        data = {f.name: _written(getattr(thing, f.name)) for f in fields(thing) if getattr(thing, f.name) != f.default}
        return {"is": type(thing).__name__, **data} if type(thing).__name__ in _TAGS else data
    if isinstance(thing, tuple | list):
        return [_written(item) for item in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return {"is": "float", "value": repr(thing)}
    return thing


def read(kind: type[T], text: str) -> T:
    """Read a plan of the class `kind` from JSON.

    Raises:
        UsageError: the text is not a plan, or a plan of another version, or damaged; the message says where.
    """
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise malformed("", f"it is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise malformed("", "it is JSON, but not a plan")
    if data.get("version") != VERSION:
        raise usage(
            Kind.STALE_PLAN,
            f"the plan is of version {data.get('version')!r}, and this fxgrow reads version {VERSION}",
            hint="create the plan again with this version",
        )
    plan = _read(kind, data.get("plan"), "plan", 0)
    assert isinstance(plan, kind)
    return plan


def malformed(where: str, what: str) -> FxgrowError:
    """Return the error for a part of a plan that is not valid."""
    return usage(Kind.STALE_PLAN, f"the plan cannot be read: {what}", where=where, hint="create the plan again")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, data: Any, where: str, depth: int) -> Any:
    """Convert JSON data to an instance of a type, or raise an error that says where they do not fit."""
    if depth > DEEPEST:
        raise malformed(where, "it is nested too deeply")
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), data, where, depth)
    if origin is tuple:
        return _row(get_args(kind), data, where, depth)
    if is_dataclass(kind):
        return _object(kind, data, where, depth)
    if kind is object or kind is Any:
        return _plain(data, where, depth)
    if kind is float and type(data) in (int, float) and (data == 0 or 1 / LARGEST_FLOAT < abs(data) < LARGEST_FLOAT):
        return float(data)
    if kind is float or type(data) is not kind or (kind is int and abs(data) > LARGEST):
        raise malformed(where, f"{_short(data)} is not a valid {getattr(kind, '__name__', kind)}")
    return data


_EARLIER: Mapping[str, tuple[str, ...]] = {"Decomposition": ("rank",)}
"""Fields of plans of earlier releases that are ignored."""


def _object(kind: Any, data: Any, where: str, depth: int) -> Any:
    if not isinstance(data, dict):
        raise malformed(where, f"{_short(data)} is not a {kind.__name__}")
    hints = _hints(kind)
    known = {k: v for k, v in data.items() if k != "is" and k not in _EARLIER.get(kind.__name__, ())}
    unknown = [k for k in known if k not in hints]
    if unknown:
        raise malformed(where, f"{kind.__name__} has no field {_short(unknown[0])}")
    values = {k: _read(hints[k], v, f"{where}.{k}", depth + 1) for k, v in known.items()}
    try:
        return kind(**values)
    except TypeError:
        missing = [f.name for f in fields(kind) if f.name not in values]
        raise malformed(where, f"{kind.__name__} lacks {', '.join(missing)}") from None


def _row(items: tuple[Any, ...], data: Any, where: str, depth: int) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise malformed(where, f"{_short(data)} is not a list")
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(data)
    if len(items) != len(data):
        raise malformed(where, f"it has {len(data)} entries instead of {len(items)}")
    return tuple(_read(k, d, f"{where}[{n}]", depth + 1) for n, (k, d) in enumerate(zip(items, data, strict=True)))


def _one_of(kinds: tuple[Any, ...], data: Any, where: str, depth: int) -> Any:
    tag = data.get("is") if isinstance(data, dict) else None
    for kind in kinds:
        if (is_dataclass(kind) and getattr(kind, "__name__", "") == tag) or kind is type(data):
            return _read(kind, data, where, depth)
    raise malformed(where, f"{_short(data)} is not one of {', '.join(getattr(k, '__name__', str(k)) for k in kinds)}")


def _plain(data: Any, where: str, depth: int) -> Any:
    """Convert a number, a name or a list of them; lists become tuples, as in the arguments of fx nodes."""
    if isinstance(data, list):
        return tuple(_read(object, item, f"{where}[{n}]", depth + 1) for n, item in enumerate(data))
    if isinstance(data, dict) and data.get("is") == "float" and data.get("value") in ("inf", "-inf", "nan"):
        return float(data["value"])
    if isinstance(data, dict) and data.get("is") == "Link":
        return _object(Link, data, where, depth)
    if isinstance(data, bool | int | float | str | None):
        return data
    raise malformed(where, f"{_short(data)} is not a number, name or list")


def _short(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= 40 else f"{text[:37]}..."
