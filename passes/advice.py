"""Refusals that recommend only what has been planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx

from fxgrow.analysis import Analysis
from fxgrow.errors import FxgrowError, GrowthRefused
from fxgrow.plan import Plan

from .ways import MOST_NAMED, NONE, Refused, Way, text
from .widen import Widen
from .widths import Width

MOST_TRIED = 6
"""Layers that are tried before none is recommended."""


def advised(plan: Callable[[], Plan], recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """A plan, or a refusal whose ways out lead out: each has been planned, or is a change of the model.

    Args:
        plan: makes the plan of the recipe.
        recipe: what is asked for.
        gm: the model.
        analysis: of it.

    Raises:
        UsageError: as `plan` does.
        GrowthRefused: as `plan` does.
    """
    try:
        return plan()
    except Refused as refused:
        return _raise(refused, recipe, gm, analysis)


def _raise(refused: Refused, recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    def works(**options: object) -> bool:
        try:
            replace(recipe, **options).plan(gm, analysis)  # type: ignore[arg-type]  # options of a recipe
        except FxgrowError:
            return False
        return True

    def layers(way: Way) -> Sequence[str]:
        found: list[str] = []
        for name in way.layers[:MOST_TRIED]:
            if works(nodes=(name,), others=(), optional=frozenset(), width=Width()):
                found.append(name)
            if len(found) == MOST_NAMED:
                break
        return found

    ways = [way for way in refused.ways if not way.options or works(**way.options)]
    raise GrowthRefused(replace(refused.refusal, hint=text(ways, layers) or NONE)) from refused.__cause__


__all__ = ["advised"]
