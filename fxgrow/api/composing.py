"""The function `plan`, which composes passes into one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.inputs.call import Call
from ..capture.locks import one_at_a_time
from ..errors import Kind, usage
from ..global_state import plain
from ..inspection.advice import advised
from ..inspection.growable import planned
from ..passes import Pass, Widen
from ..plan_validation import check_root_hooks, remember
from ..plans import Plan
from ..rewrite import apply
from ..rewrite.apply import sketch
from .analyses import analysis_of


@plain
@one_at_a_time
def plan(
    model: fx.GraphModule,
    *passes: Pass,
    example_inputs: Sequence[Any] | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan one or more passes, each for the model that the ones before it would make. Nothing is applied.

    `widen`, `deepen` and `grow` are short forms of this call.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> from fxgrow.passes import CloneBlock, Widen
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> plan = fxgrow.plan(traced, Widen("layer2.conv1", factor=1.5), CloneBlock(after="layer3"))
        >>> larger = fxgrow.apply(plan, traced)

    Args:
        model: a traced model.
        passes: `fxgrow.passes.Widen`, `InsertBlock`, `CloneBlock`, `IdentityLayer` and `Factorize`, in this order.
        example_inputs: the inputs of the model, as in `fxgrow.trace`, if they differ from those it was traced with.
        example_kwargs: keyword arguments of the model.

    Returns:
        The plan. `print(plan)` explains it, `fxgrow.apply(plan, model)` applies it, `plan.to_json()` stores it.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: a pass would change the function or the interface of the model.
    """
    if not passes:
        raise usage(Kind.BAD_OPTION, "no pass is given", hint='fxgrow.plan(model, Widen("layer2.conv1"))')
    for step in passes:
        if not callable(getattr(step, "plan", None)) or isinstance(step, type):
            what = f"{step!r:.60} is not a pass"
            raise usage(Kind.BAD_OPTION, what, hint='an instance: Widen("layer2.conv1"), CloneBlock(after="layer3")')
    first = analysis = analysis_of(model, example_inputs, example_kwargs)
    twin, steps = model, [one(passes[0], model, analysis)]
    for step in passes[1:]:
        twin = apply(steps[-1], sketch(twin), inplace=True, checked=True)
        analysis = analysis_of(twin, replace(first.call.on("meta"), guessed=()))
        steps.append(one(step, twin, analysis))
    found = replace(steps[0], then=tuple(steps[1:]))
    return remember(check_root_hooks(found, model, first), first)


def one(step: Pass, model: fx.GraphModule, analysis: Analysis) -> Plan:
    """Return the plan of one pass. The alternatives in the refusal of a widening have been planned themselves."""
    if isinstance(step, Widen):
        return advised(partial(planned, step, model, analysis), step, model, analysis)
    return step.plan(model, analysis)
