"""Plans that may come from anywhere are proved once more for the model that they are applied to, step by step."""

from __future__ import annotations

import weakref
from dataclasses import replace

from torch import Tensor, fx

from ..analysis import Analysis, analyse
from ..errors import FxgrowError, Kind, usage
from ..passes.opened import opened
from ..plan import Plan
from ..rewrite import apply
from ..rewrite.apply import check, sketch
from ..schemes import Failure, Proof
from .deepened import deepening_difference
from .widened import proved_again, solvers, widening_difference

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


def prove_again(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> None:
    """Prove a plan from the states that it lists, and compare all that it says of the model with what follows.

    Nothing is searched for, and nothing is written. Sketches of the model stand for the result of each step.

    Args:
        plan: from a file, say.
        gm: the model that it is to be applied to.
        analysis: of that model.

    Raises:
        UsageError: a step does not prove, or says something else of the model than is derived; the message has the
            first difference.
    """
    target, known, before = gm, analysis, None
    for number, step in enumerate(plan.every()):
        where = f"step {number + 1}: " if plan.then else ""
        if before is not None:
            target = apply(before, sketch(target), inplace=True, checked=True)
            inputs = tuple(x.to("meta") if isinstance(x, Tensor) else x for x in analysis.inputs)
            known = analyse(target, inputs, lowering=analysis.lowering)
        check(step, target)
        problem = _difference(step, target, known)
        if problem:
            raise usage(Kind.STALE_PLAN, where + problem, hint="make the plan anew for this model")
        before = replace(step, then=())



def _difference(step: Plan, gm: fx.GraphModule, analysis: Analysis) -> str:
    try:
        if step.inserts:
            return deepening_difference(step, gm, analysis)
        return widening_difference(step, gm, analysis)
    except FxgrowError as error:
        return error.refusal.what
    except _DAMAGE as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return f"the plan cannot be what fxgrow made for this model: {reason}"


def reprove(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Proof | Failure:
    """Prove one step of a widening from the states that it lists, in a program that reads the same parameters.

    That may be the program of another mode of the model: parameters that it does not read are left out. Edits of nodes
    and modules are not compared.

    Args:
        plan: one step; those that follow it are not looked at.
        gm: the graph that `analysis` is of.
        analysis: of the program in which it is to hold.
    """
    if plan.openings:
        gm, analysis = opened(gm, analysis, plan.openings)
    failures = []
    for dims in solvers(plan, analysis):
        again = proved_again(plan, dims, partly=True)
        if not isinstance(again, Failure):
            return again[1]
        failures.append(again)
    return failures[0]
