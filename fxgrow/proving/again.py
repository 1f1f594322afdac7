"""Plans that may come from anywhere are proved once more for the model that they are applied to, step by step."""

from __future__ import annotations

import weakref
from dataclasses import replace

from torch import fx

from ..analysis import Analysis, analyse
from ..errors import FxgrowError, Kind, usage
from ..plan import Plan
from ..rewrite import apply
from ..rewrite.apply import check, sketch
from .deepened import deepened_again
from .widened import widened_again

_MADE: dict[int, weakref.ref[Plan]] = {}
"""Plans that passes of this process have made and proved, by identity."""
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, SyntaxError, OverflowError)
"""What comes of a plan that is not what it says it is, where no check has seen through it."""


def remember(plan: Plan) -> Plan:
    """Note that a plan was proved when it was made, so that it need not be proved once more when it is applied."""
    key = id(plan)
    _MADE[key] = weakref.ref(plan, lambda _: _MADE.pop(key, None))
    return plan


def remembered(plan: Plan) -> bool:
    """Whether this very plan was made, and so proved, in this process."""
    found = _MADE.get(id(plan))
    return found is not None and found() is plan


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
        return f"the plan cannot be what fxgrow made for this model: {reason}"
