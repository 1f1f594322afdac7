"""The options of the functions, the passes and the command are the same: names and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import Any

import pytest

import fxgrow
from fxgrow.cli import growing
from fxgrow.passes import CloneBlock, Factorize, IdentityLayer, InsertBlock, Widen, Width

MODEL = {"model", "example_inputs", "example_kwargs"}
APPLIED = {"inplace", "verify"}
FILES = {"weights", "grown", "inputs", "out", "overwrite", "dry_run", "check", "unsafe_pickle"}
"""Options of the command that say where models come from and go to."""
VERBS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "widen": (fxgrow.widen, fxgrow.plan_widen, growing.widen),
    "deepen": (fxgrow.deepen, fxgrow.plan_deepen, growing.deepen),
    "grow": (fxgrow.grow, fxgrow.plan_grow, growing.grow),
}


def options(function: Callable[..., Any]) -> dict[str, object]:
    """The parameters of a function with their defaults."""
    found = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {name: default.value if isinstance(default, Enum) else default for name, default in found.items()}


def without(some: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in some.items() if name not in names}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_the_options_of_its_plan(name: str) -> None:
    verb, plan, _ = VERBS[name]
    assert without(options(verb), *APPLIED) == options(plan)
    assert {k: options(verb)[k] for k in APPLIED} == dict.fromkeys(APPLIED, False)


@pytest.mark.parametrize("name", VERBS)
def test_the_command_has_the_options_of_the_verb(name: str) -> None:
    _, plan, command = VERBS[name]
    here, there = without(options(command), *MODEL, *FILES), without(options(plan), *MODEL)
    if name == "grow":
        here.pop("round_to")  # in Python it is part of fxgrow.Width
    if name == "deepen":
        assert not callable(there["block"])  # functions have no name for a terminal
    assert here == there


def test_a_pass_has_the_options_of_its_verb() -> None:
    of = {cls: {f.name: f.default for f in fields(cls)} for cls in (InsertBlock, CloneBlock, IdentityLayer, Factorize)}
    deepen = without(options(fxgrow.plan_deepen), *MODEL)
    assert of[InsertBlock] == deepen
    for cls in (CloneBlock, IdentityLayer, Factorize):
        assert {k: v for k, v in of[cls].items() if k != "layers"}.items() <= deepen.items()
    widen = without(options(fxgrow.plan_widen), *MODEL, "node")
    here = {f.name: f.default for f in fields(Widen)}
    assert {k: here[k] for k in widen.keys() & here.keys()} == without(widen, "to", "by", "factor", "round_to")
    assert without(options(Width)) == {k: widen[k] for k in ("to", "by", "factor", "round_to")}
    assert {k: options(Widen)[k] for k in ("to", "by", "factor", "round_to")} == options(Width)


def test_every_option_is_documented() -> None:
    for verb, plan, _ in VERBS.values():
        for name in options(verb):
            assert f"\n        {name}: " in (verb.__doc__ or ""), name
        assert "Takes the arguments of" in (plan.__doc__ or "")
