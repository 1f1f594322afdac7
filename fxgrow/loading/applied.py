"""Plans from outside, applied: whatever is wrong with one is told as such, and nothing is allocated before it fits."""

from __future__ import annotations

from torch import fx

from ..api.applying import apply
from ..errors import FxgrowError, Kind, usage
from ..plans import Plan
from ..rewrite import apply as write
from ..rewrite.apply import tensors_of
from ..rewrite.memory_limits import check_memory


def grown_by(plan: Plan, model: fx.GraphModule, *, checked: bool = False) -> fx.GraphModule:
    """A plan applied to a copy of a model, if this machine can hold the result.

    Raises:
        UsageError: it cannot, or the plan was made for another model, or is damaged.
    """
    if checked:  # made just now, so it fits the model, but perhaps not the machine
        check_memory(plan, tensors_of(model))
        return write(plan, model, checked=True)
    try:
        return apply(plan, model)
    except FxgrowError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, SyntaxError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]  # a plan from a file that no check saw through
        raise usage(
            Kind.STALE_PLAN, f"the plan cannot be applied: {reason}", hint="make the plan anew for this model"
        ) from error
