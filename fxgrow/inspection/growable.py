"""Determines once which layers of a model can grow, for `inspect` and for plans of many layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import fx

from ..analysis.analysis import Analysis
from ..errors import FxgrowError, Kind, Refusal
from ..passes.widen import Widen
from ..planning.targets import paths
from ..planning.widths import Width
from ..plans import Plan

TWICE = Width(factor=2.0)
"""Twice the width: uniform copies need a multiple, and refusals other than those of `BY_WIDTH` apply to every width."""
BY_WIDTH = frozenset({Kind.DECIDED, Kind.INEXPRESSIBLE})
"""Refusals that may depend on the width: the model's code does something else at that width."""
_LESS = {"factor=1.25": Width(factor=1.25), "by=1": Width(by=1)}


@dataclass(frozen=True, slots=True)
class Answers:
    """Which layers (named as in `paths`) can grow: the plan that doubles their widths, and the refusals of the
    others."""

    recipe: Widen | None
    """The recipe that was planned; None for a model without layers."""
    plan: Plan | None
    """The plan; None if no layer can grow."""
    refusals: Mapping[str, Refusal]
    """The refusals of the layers that cannot grow, by name. As values: exceptions would keep the model alive."""


@dataclass(slots=True)
class _Kept:
    """The answers computed so far, by scheme."""

    found: dict[str, Answers] = field(default_factory=dict)


def answers(gm: fx.GraphModule, analysis: Analysis, scheme: str = "auto") -> Answers:
    """Return which layers can grow together with their coupled layers; computed once, and kept with the analysis."""
    kept = analysis.kept(_Kept, _Kept).found
    if scheme not in kept:
        kept[scheme] = _answers(gm, analysis, scheme)
    return kept[scheme]


def _answers(gm: fx.GraphModule, analysis: Analysis, scheme: str) -> Answers:
    names = tuple(paths(gm, analysis.dims))
    if not names:
        return Answers(None, None, {})
    recipe = Widen(nodes=(), others=tuple((n, TWICE) for n in names), optional=frozenset(names), scheme=scheme)
    settled = recipe.settled(gm, analysis)
    refusals = {name: _by_less(name, why, recipe, gm, analysis) for name, why in settled.left_out.items()}
    return Answers(recipe, settled.plan, refusals)


def _by_less(name: str, why: Refusal, recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Refusal:
    """Return the refusal of a layer, extended if the layer can grow by less than twice its width."""
    if why.kind not in BY_WIDTH:
        return why
    for text, width in _LESS.items():
        try:
            replace(recipe, others=((name, width),), optional=frozenset()).plan(gm, analysis)
        except FxgrowError:
            continue
        what = why.what.replace(f"cannot widen {name}:", f"cannot widen {name} to twice its width:", 1)
        return replace(why, what=what, hint=f"a smaller width: {text}")
    return why


def planned(recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """Plan a recipe whose optional layers are left out where `inspect` says that they cannot grow.

    Raises:
        UsageError: a name or a width is invalid.
        GrowthRefused: a required layer cannot grow, or none can.
    """
    if not recipe.optional or recipe.scheme != "auto" or recipe.skip != "couple":
        return recipe.plan(gm, analysis)
    known = answers(gm, analysis)
    if recipe == known.recipe and known.plan is not None:
        return known.plan
    asked = dict(recipe.others)
    left_out = {
        name: why for name, why in known.refusals.items() if why.kind not in BY_WIDTH or asked.get(name, TWICE) == TWICE
    }
    return recipe.plan(gm, analysis, left_out)
