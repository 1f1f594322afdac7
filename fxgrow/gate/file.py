"""Reads and validates gate.toml, and returns it as plain data. Reading a gate file runs no code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Kind, usage
from ..loading.wishes import size
from . import fields as f
from .row import BASELINE

LARGEST_FILE = 2**20
"""The largest size of a gate file, in bytes."""
VERBS = ("widen", "deepen", "grow")
_NAMES = f.several(f.text)
_COMMON: dict[str, f.Field] = {"scheme": f.text, "seed": f.whole, "init": f.text}
_WIDEN: dict[str, f.Field] = {
    **_COMMON,
    "node": _NAMES,
    **dict.fromkeys(("to", "by", "round_to"), f.whole),
    "factor": f.number,
    **dict.fromkeys(("skip", "adapter", "grow"), f.text),
}
_DEEPEN: dict[str, f.Field] = {
    **_COMMON,
    **dict.fromkeys(("after", "before"), _NAMES),
    **dict.fromkeys(("block", "norm", "activation"), f.text),
    **dict.fromkeys(("count", "hidden", "kernel", "heads"), f.whole),
    "causal": f.flag,
}
_BLOCK = {k: v for k, v in _DEEPEN.items() if k not in ("after", "before")}


def _size(value: Any, where: str) -> Any:
    return size(f.text(value, where)) if isinstance(value, str) else f.number(value, where)


def _options(options: Mapping[str, f.Field]) -> f.Field:
    return lambda value, where: f.table(value, where, options)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_GROW: dict[str, f.Field] = {
    **_COMMON,
    "widen": f.either(f.mapping(_size), _size, _is_table),
    "deepen": f.either(f.mapping(f.either(f.text, _options(_BLOCK), _is_text)), _NAMES, _is_table),
    **dict.fromkeys(("skip", "grow"), f.text),
}
_TOLERANCES = f.mapping(f.tolerance)
_FILE: dict[str, f.Field] = {
    "seeds": f.several(f.whole),
    "training": f.flag,
    "baseline": f.text,
    "tolerance": _TOLERANCES,
    "model": lambda value, where: _tables(value, where, _MODEL),
    "growth": lambda value, where: _tables(value, where, _GROWTH),
}
_MODEL: dict[str, f.Field] = {
    **dict.fromkeys(("name", "factory", "weights", "grown"), f.text),
    "inputs": _NAMES,
    "tolerance": _TOLERANCES,
}
_GROWTH: dict[str, f.Field] = {
    "name": f.text,
    "models": _NAMES,
    "widen": _options(_WIDEN),
    "deepen": _options(_DEEPEN),
    "grow": _options(_GROW),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the gate: how to build it, and the tolerances of its outputs."""

    name: str
    factory: str
    weights: Path | None = None
    grown: Path | None = None
    inputs: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """Relative tolerances by output; "default" is for all others."""
    own: tuple[str, ...] = ()
    """Outputs named in the model's own tolerance table."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A growth of the gate: widen, deepen or grow, with options."""

    name: str
    verb: str
    options: Mapping[str, Any]
    models: tuple[str, ...] = ()
    """The names of its models; () means all."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The contents of a gate file."""

    folder: Path
    models: tuple[Subject, ...]
    growths: tuple[Growth, ...]
    seeds: tuple[int, ...] = (0,)
    training: bool = True
    baseline: Path | None = None
    common: tuple[str, ...] = ()
    """Outputs named in the tolerance table for all models."""

    @property
    def pairs(self) -> tuple[tuple[Subject, Growth], ...]:
        """Every model with every growth that applies to it."""
        return tuple((m, g) for m in self.models for g in self.growths if not g.models or m.name in g.models)


def read_gate(path: str | Path, *, anywhere: bool = False) -> Gate:
    """Read a gate file. Its factories are not imported and its weights are not read.

    Args:
        path: the file.
        anywhere: whether paths in the file may lead outside its folder.

    Raises:
        UsageError: the file does not exist, is not TOML, or has an invalid key or value; the message says where.
    """
    path = Path(path)
    if not path.is_file():
        raise usage(Kind.BAD_OPTION, f"there is no gate file {path}", hint="docs/gate.md has an example to copy")
    if path.stat().st_size > LARGEST_FILE:
        raise usage(
            Kind.BAD_OPTION, f"{path} has {path.stat().st_size:,} bytes, too many for a gate file", hint="docs/gate.md"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise usage(Kind.BAD_OPTION, f"{path} is not TOML: {error}", hint="docs/gate.md has an example") from error
    return _gate(f.table(data, "top", _FILE), path.resolve().parent, anywhere)


def _gate(data: Mapping[str, Any], folder: Path, anywhere: bool) -> Gate:
    common = data.get("tolerance", {})
    models = tuple(_model(m, k, folder, anywhere, common) for k, m in enumerate(data.get("model", ())))
    growths = tuple(_growth(g, k, {m.name for m in models}) for k, g in enumerate(data.get("growth", ())))
    for kind, names in (("model", [m.name for m in models]), ("growth", [g.name for g in growths])):
        twice = next((n for k, n in enumerate(names) if n in names[:k]), None)
        if twice is not None:
            raise f.bad(kind, f"two have the name {f.short(twice)}", "give each a unique name =")
    baseline = f.inside(folder, data["baseline"], "baseline", anywhere=anywhere) if "baseline" in data else None
    if not models:
        raise f.bad("model", "the file has none", 'add [[model]] with factory = "module:factory"')
    seeds, training = data.get("seeds", (0,)), data.get("training", True)
    return Gate(folder, models, growths, seeds, training, baseline, tuple(common))


def _model(data: Mapping[str, Any], k: int, folder: Path, anywhere: bool, common: Mapping[str, float]) -> Subject:
    where = f"model[{k}]"
    if "factory" not in data:
        raise f.bad(where, "it has no factory", 'add factory = "module:factory"')
    if "weights" in data and "grown" in data:
        raise f.bad(
            where, "both weights and grown are given", "leave out weights: the folder of a grown model contains them"
        )
    paths = {
        key: f.inside(folder, data[key], f"{where}.{key}", anywhere=anywhere)
        for key in ("weights", "grown")
        if key in data
    }
    own = data.get("tolerance", {})
    name, inputs = data.get("name", data["factory"]), data.get("inputs", ())
    return Subject(name, data["factory"], inputs=inputs, tolerance={**common, **own}, own=tuple(own), **paths)


def _growth(data: Mapping[str, Any], k: int, models: set[str]) -> Growth:
    where = f"growth[{k}]"
    verbs = [v for v in VERBS if v in data]
    if len(verbs) != 1:
        raise f.bad(
            where,
            f"it has {' and '.join(verbs) or 'none of widen, deepen and grow'}",
            "give exactly one of these tables",
        )
    unknown = [m for m in data.get("models", ()) if m not in models]
    if unknown:
        raise f.bad(f"{where}.models", f"there is no model {f.short(unknown[0])}", f"models are {', '.join(models)}")
    if data.get("name") == BASELINE:
        raise f.bad(
            where, f"the name {BASELINE!r} is reserved for the comparison with recorded outputs", "use another name"
        )
    (verb,) = verbs
    if verb == "widen" and "node" not in data[verb]:
        raise f.bad(f"{where}.widen", "it has no node", 'add node = "layer2.conv1"')
    return Growth(data.get("name", f"{verb} {k + 1}"), verb, data[verb], data.get("models", ()))


def _tables(value: Any, where: str, known: Mapping[str, f.Field]) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or len(value) > f.MOST:
        raise f.bad(where, "it is not a list of tables", f"write it as [[{where.rpartition('.')[2]}]]")
    return tuple(f.table(item, f"{where.rpartition('.')[2]}[{k}]", known) for k, item in enumerate(value))
