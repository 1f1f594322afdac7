"""Plans that may come from anywhere are proved once more for the model that they are applied to, step by step."""

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
from .check_root_hooks import check_root_hooks
from .insertions import deepened_again
from .widenings import widened_again

_MADE: dict[int, tuple[weakref.ref[Plan], weakref.ref[Analysis]]] = {}
"""Plans that passes of this process have made and proved, by identity, with the analysis that they were proved on."""
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, SyntaxError, OverflowError)
"""What comes of a plan that is not what it says it is, where no check has seen through it."""


def remember(plan: Plan, analysis: Analysis) -> Plan:
    """Note that a plan was proved when it was made, so that it need not be proved once more when it is applied.

    Args:
        plan: what was proved.
        analysis: of the model that it was proved for.
    """
    key = id(plan)
    _MADE[key] = weakref.ref(plan, lambda _: _MADE.pop(key, None)), weakref.ref(analysis)
    return plan


def remembered(plan: Plan, gm: fx.GraphModule) -> bool:
    """Whether this very plan was made, and so proved, in this process, for a model that is still like this one."""
    made, analysis = _MADE.get(id(plan), (None, None))
    known = analysis() if analysis is not None and made is not None and made() is plan else None
    return known is not None and known.fits(Snapshot(gm))


def prove_again(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """Prove a plan from the states that it lists, and compare all that it says of the model with what follows.

    Nothing is searched for, and nothing is written. Sketches of the model stand for the result of each step.

    Args:
        plan: from a file, say.
        gm: the model that it is to be applied to.
        analysis: of that model.

    Returns:
        The plan with the proof and the costs that were derived here.

    Raises:
        UsageError: a step does not prove, or says something else of the model than is derived; the message has the
            first difference.
        GrowthRefused: forward hooks of the model itself would do something else.
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
            raise usage(Kind.STALE_PLAN, where + again, hint="make the plan anew for this model")
        steps.append(again)
    return check_root_hooks(replace(steps[0], then=tuple(steps[1:])), gm, analysis)


def _again(step: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan | str:
    try:
        if step.inserts:
            return deepened_again(step, gm, analysis)
        return widened_again(step, gm, analysis)
    except FxgrowError as error:
        return error.refusal.what
    except _DAMAGE as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return f"the plan cannot be what fxgrow made for this model: {reason}"
