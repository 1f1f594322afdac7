"""Proves plans of unknown origin again, step by step, for the model that they are applied to."""

from __future__ import annotations

import weakref
from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis, analyse
from ..capture.lowering.snapshot import Snapshot
from ..errors import FxgrowError, Kind, usage
from ..plans import Plan
from ..rewrite import apply
from ..rewrite.apply import check, sketch
from .insertions import deepened_again
from .widenings import widened_again

_MADE: dict[int, tuple[weakref.ref[Plan], weakref.ref[Analysis]]] = {}
"""Plans that this process made and proved, by identity, with the analysis that they were proved on."""
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, SyntaxError, OverflowError)
"""Exceptions caused by damaged plans that passed all checks."""


def remember(plan: Plan, analysis: Analysis) -> Plan:
    """Record that a plan was proved when it was made, so that it is not proved again when it is applied.

    Args:
        plan: the plan that was proved.
        analysis: the analysis of its model.
    """
    key = id(plan)
    _MADE[key] = weakref.ref(plan, lambda _: _MADE.pop(key, None)), weakref.ref(analysis)
    return plan


def remembered(plan: Plan, gm: fx.GraphModule) -> bool:
    """Whether this plan object was made and proved in this process, for a model that is equal to this one."""
    made, analysis = _MADE.get(id(plan), (None, None))
    known = analysis() if analysis is not None and made is not None and made() is plan else None
    return known is not None and known.fits(Snapshot(gm))


def prove_again(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """Prove a plan from the states that it lists, and compare everything else in it with what follows from them.

    There is no search, and nothing is written. Copies of the model on the meta device stand for the result of each
    step.

    Args:
        plan: the plan, for example from a file.
        gm: the model that it is applied to.
        analysis: the analysis of that model.

    Returns:
        The plan with the proof and costs that were derived here.

    Raises:
        UsageError: a step cannot be proved, or differs from what is derived; the message contains the first
            difference.
    """
    target, known = gm, analysis
    steps: list[Plan] = []
    for number, step in enumerate(plan.every()):
        where = f"step {number + 1}: " if plan.then else ""
        if steps:
            target = apply(steps[-1], sketch(target), inplace=True, checked=True)
            known = analyse(target, analysis.call.on("meta"), lowering=analysis.lowering)
        check(step, target)
        again = _again(replace(step, then=()), target, known)
        if isinstance(again, str):
            raise usage(Kind.STALE_PLAN, where + again, hint="make a new plan for this model")
        steps.append(again)
    return replace(steps[0], then=tuple(steps[1:]))


def _again(step: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan | str:
    try:
        if step.inserts:
            return deepened_again(step, gm, analysis)
        return widened_again(step, gm, analysis)
    except FxgrowError as error:
        return error.refusal.what
    except _DAMAGE as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return f"the plan is not one that fxgrow made for this model: {reason}"
