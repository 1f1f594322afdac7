"""Makes refusals recommend only growths that were planned successfully."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis
from ..errors import FxgrowError, GrowthRefused
from ..passes.widen import Widen
from ..planning.next_steps import MOST_NAMED, NONE, Named, Refused, Way, text
from ..planning.widths import Width
from ..plans import Plan
from .growable import TWICE

MOST_TRIED = 6
"""The largest number of layers that are tried before a recommendation is given up."""


def advised(plan: Callable[[], Plan], recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """Make a plan; if it is refused, keep only hints that work: each was planned, or is a change of the model.

    Args:
        plan: makes the plan of the recipe.
        recipe: the requested growth.
        gm: the model.
        analysis: the analysis of the model.

    Raises:
        UsageError: raised by `plan`.
        GrowthRefused: raised by `plan`.
    """
    try:
        return plan()
    except Refused as refused:
        return _raise(refused, recipe, gm, analysis)


def _raise(refused: Refused, recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    def works(**options: object) -> bool:
        if "width" in options:  # the same width for all layers
            options["others"] = tuple((name, options["width"]) for name, _ in recipe.others)
        return _can_be_planned(replace(recipe, **options), gm, analysis)  # type: ignore[arg-type]  # options of a recipe

    def layers(way: Way) -> Named:
        """Return the nearest layers that grow by as much, else those that grow to twice their width."""
        for width, said in _widths(recipe):
            found: list[str] = []
            for name in way.layers[:MOST_TRIED]:
                one = replace(recipe, nodes=(name,), others=(), optional=frozenset(), width=width)
                found += [name] if _can_be_planned(one, gm, analysis) else []
                if len(found) == MOST_NAMED:
                    break
            if found:
                return Named(found, said)
        return Named()

    ways = [way for way in refused.ways if not way.options or works(**way.options)]
    raise GrowthRefused(replace(refused.refusal, hint=text(ways, layers) or NONE)) from refused.__cause__


def _widths(recipe: Widen) -> Sequence[tuple[Width, str]]:
    """Return widths to try on other layers than the named ones, each with its description; the requested width
    first."""
    asked = dict.fromkeys([*([recipe.width] if recipe.nodes else []), *(width for _, width in recipe.others)])
    known = [(width, "") for width in asked] if len(asked) == 1 else []
    twice = [] if {Width(), TWICE} & asked.keys() and known else [(TWICE, "twice the width")]
    return [*known, *twice]


def _can_be_planned(recipe: Widen, gm: fx.GraphModule, analysis: Analysis) -> bool:
    try:
        recipe.plan(gm, analysis)
    except FxgrowError:
        return False
    return True


__all__ = ["advised"]
