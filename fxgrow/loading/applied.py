"""Applies plans from outside: errors in a plan become `UsageError`, and memory is checked before anything is
allocated."""

from __future__ import annotations

from torch import fx

from ..api.applying import apply
from ..errors import FxgrowError, Kind, usage
from ..plans import Plan
from ..rewrite import apply as write
from ..rewrite.apply import tensors_of
from ..rewrite.memory_limits import check_memory


def grown_by(plan: Plan, model: fx.GraphModule, *, checked: bool = False) -> fx.GraphModule:
    """Apply a plan to a copy of a model, if this machine has enough memory for the result.

    Raises:
        UsageError: there is not enough memory, or the plan is damaged or was made for another model.
    """
    if checked:  # made by this process, so it fits the model, but perhaps not the memory
        check_memory(plan, tensors_of(model))
        return write(plan, model, checked=True)
    try:
        return apply(plan, model)
    except FxgrowError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, SyntaxError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[
            0
        ]  # a damaged plan from a file that passed the checks
        raise usage(
            Kind.STALE_PLAN, f"the plan cannot be applied: {reason}", hint="make a new plan for this model"
        ) from error
