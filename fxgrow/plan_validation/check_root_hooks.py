"""Do the forward hooks of the model itself do after a growth what they do before it?"""

from __future__ import annotations

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.lowering.root_hooks import WAY_OUT, hooks_of, record_again
from ..capture.program.call_key import meta_of
from ..capture.program.program import Program
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal
from ..plans import Plan
from ..rewrite.apply import apply, sketch, tensors_of


def check_root_hooks(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan:
    """Return a plan, or refuse one after which the hooks of a model would run something else, or on other numbers.

    They are given the same inputs and outputs as before, for these do not grow. So they return the same if they run
    the same operators on nothing that the plan changes.

    Args:
        plan: a proved plan.
        gm: the model that it is for.
        analysis: of that model.

    Raises:
        GrowthRefused: they would not, or nothing can tell.
    """
    if not hooks_of(gm):
        return plan
    changed = {name for step in plan.every() for edit in step.tensors for name in edit.names}
    deeper = any(step.inserts for step in plan.every())
    grown = apply(plan, sketch(gm), inplace=True, checked=True)
    for program in analysis.programs(gm):
        names = [name for value in program.read_by_hooks for name in value.names]
        bad = next((name for name in names if deeper or name in changed), None)
        if bad is not None:
            raise _refused(f"a forward hook of the model itself computes with {bad}, which the growth may change")
        problem = _difference(program, gm, grown, analysis)
        if problem:
            raise _refused(problem)
    return plan


def _difference(program: Program, gm: fx.GraphModule, grown: fx.GraphModule, analysis: Analysis) -> str:
    """What the hooks of the grown model do otherwise, in words; empty if nothing. Both run on no numbers."""
    old = tensors_of(gm)
    device = next((t.device for t in old.values()), None)
    metas = {}
    for name, tensor in tensors_of(grown).items():
        shape, stride, dtype, own = meta_of(tensor)
        metas[id(tensor)] = (shape, stride, dtype, old[name].device if name in old else device or own)
    try:
        before = record_again(gm, analysis.lowering, program.hooks)
        after = record_again(grown, analysis.lowering, program.hooks, metas)
    except FxgrowError as error:
        return error.refusal.what
    if before is not None and after is not None and after.same(before):
        return ""
    return "a forward hook of the model itself would do something else in the grown model"


def _refused(what: str) -> GrowthRefused:
    return GrowthRefused(Refusal(Kind.UNSUPPORTED_MODEL, what, "the model itself", hint=WAY_OUT))
