"""The function `apply`, and the step that widen, deepen and grow share: apply a new plan and verify the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..capture.locks import one_at_a_time
from ..errors import VerificationFailed
from ..global_state import plain
from ..plan_validation import prove_again
from ..plan_validation import remembered as proved_here
from ..plans import Plan
from ..rewrite import apply as write
from ..rewrite.apply import check as check_plan
from ..rewrite.apply import tensors_of
from ..rewrite.memory_limits import check_memory
from .analyses import ANALYSES, analysis_of
from .verifying import verify as check


@plain
@one_at_a_time
def apply(
    plan: Plan,
    model: fx.GraphModule,
    *,
    inplace: bool = False,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """Apply a plan to the model that it was made for, or to another copy of it.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> text = fxgrow.plan_widen(traced, "layer2.conv1").to_json()
        >>> wider = fxgrow.apply(fxgrow.Plan.from_json(text), traced)

    A plan from a file, or one that was changed, is proved once more for this model, from the states that it lists, and
    all that it says of the model is compared with what follows from them. A plan that `plan_widen`, `plan_deepen` or
    `plan_grow` has returned in this process is proved already, as long as the model does what it did then.

    Args:
        plan: what to change.
        model: a traced model.
        inplace: write into `model`; otherwise an independent copy is written and `model` stays as it is, bit for bit.
        example_inputs: tensors with the shapes that the model takes, where they cannot be inferred; as for the plan.
        example_kwargs: the same by name.

    Returns:
        The grown model: the same classes, parameter names, device, dtype, training flags, requires_grad, and hooks of
        parameters. It starts without gradients.

    Raises:
        UsageError: the plan was made for another model, or was changed; or a parameter that grows has a hook, or lies
            in the same memory as another part of the model. Nothing has been written then.
    """
    fresh = proved_here(plan, model)
    if not fresh:
        check_plan(plan, model)
        plan = prove_again(plan, model, analysis_of(model, example_inputs, example_kwargs))
    return write(plan, model, inplace=inplace, checked=fresh)


def grown_by(plan: Plan, model: fx.GraphModule, *, inplace: bool, verify: bool) -> fx.GraphModule:
    """Apply a plan that has just been made for a model, and verify the result if that is asked for.

    Args:
        plan: the plan.
        model: the model that it was made for; its analysis is known.
        inplace: change `model` itself; with `verify`, only after a copy has passed.
        verify: compare the grown model with `model`.

    Returns:
        The grown model.

    Raises:
        UsageError: the grown model does not fit into memory.
        VerificationFailed: the certificate does not hold.
    """
    known = ANALYSES[model]
    check_memory(plan, tensors_of(model))
    grown = write(plan, model, inplace=inplace and not verify, checked=True)
    if verify:
        certificate = check(model, grown, example_inputs=known.call)
        if not certificate:
            raise VerificationFailed(certificate.refusal())
        if inplace:
            grown = write(plan, model, inplace=True, checked=True)
    ANALYSES.setdefault(grown, known)  # the next analysis reuses its signatures and input shapes
    return grown
