"""The laws of growth: one oracle for every model and every growth.

* the function stays, in float64, in evaluation mode and, unless the plan says otherwise, in training mode;
* the model that is grown stays as it is, bit for bit; of one that is refused, too;
* a plan that has been text makes the same bits, in place as well as on a copy;
* shapes, widths and the number of parameters are what the plan predicts;
* weights that are tied stay tied;
* the gradient of every parameter is finite;
* nothing but a refusal or a usage error is ever raised, and a proof stands in every plan that is not refused.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ...errors import FxgrowError, GrowthRefused, Kind, UsageError
from ...plan import Plan
from ...rewrite import apply
from ...verify.certificate import FLOAT64_BOUND
from ...verify.compare import distance, flat, seeded
from ..bits import snapshot
from .growths import Growth, plan_of
from .promises import LawBroken, eval_only, predicted, proved, repeatable, tied
from .running import outputs, own_rounding, probes

ILL = 1e4
"""A difference below this many times what a change of the input in its last place makes is rounding: networks with
norms over few, nearly equal numbers multiply rounding errors."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one growth of one model, when no law was broken."""

    growth: Growth
    refusal: Kind | None
    misuse: bool = False
    """Refused because the call cannot be meant, not because the function would change."""
    scheme: str = ""
    error: float = 0.0
    """The largest relative difference in float64."""
    rounding: bool = False
    """The difference is above the bound of 1e-10, and the network's own rounding explains it."""
    eval_only: bool = False


def watch(model: fx.GraphModule, inputs: Sequence[Tensor], growth: Growth) -> tuple[Seen, fx.GraphModule | None]:
    """Grow a traced model of float64 and look whether all laws hold.

    Args:
        model: stays as it is.
        inputs: for it, in float64.
        growth: what to ask.

    Returns:
        What was seen, and the grown model unless the growth was refused.

    Raises:
        LawBroken: one of them did not.
    """
    before = snapshot(model)
    try:
        plan = plan_of(growth, model)
        grown = apply(plan, model)
    except (GrowthRefused, UsageError) as error:
        _untouched(model, before)
        if not str(error).startswith(error.kind.value) or not error.refusal.hint:
            raise LawBroken("a refusal says what to do", str(error)) from error
        return Seen(growth, error.kind, isinstance(error, UsageError)), None
    except FxgrowError as error:
        raise LawBroken("a growth is made or refused", str(error)) from error
    except Exception as error:
        raise LawBroken("a growth is made or refused", f"{type(error).__name__}: {error}") from error
    _untouched(model, before)
    proved(plan, grown, inputs)
    predicted(plan, model, grown)
    tied(model, grown)
    repeatable(plan, model, grown, inputs)
    gap, rounding = _preserved(plan, model, grown, inputs)
    _gradients(grown, inputs)
    _untouched(model, before)
    scheme = plan.scheme if not plan.then else "several"
    return Seen(growth, None, False, scheme, gap, rounding, bool(eval_only(plan))), grown


def _untouched(model: fx.GraphModule, before: dict[str, Any]) -> None:
    now = snapshot(model)
    if now != before:
        changed = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        raise LawBroken("the model that is grown stays as it is", ", ".join(changed[:5]))


def _preserved(
    plan: Plan, model: fx.GraphModule, grown: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[float, bool]:
    modes = (False,) if eval_only(plan) else (False, True)
    shown = [*probes(inputs)]
    worst, rounding = 0.0, False
    for training in modes:
        for which, some in shown:
            wanted = outputs(model, some, training)
            if wanted is None:
                continue
            found = outputs(grown, some, training)
            mode = f"{which} inputs, {'training' if training else 'evaluation'} mode"
            if found is None:
                raise LawBroken("the function stays", f"the grown model cannot run on {mode}")
            if wanted.keys() != found.keys() or any(wanted[k].shape != found[k].shape for k in wanted):
                raise LawBroken("the interface stays", mode)
            gap = max(distance(wanted[k], found[k]) for k in wanted)
            if gap > FLOAT64_BOUND:
                if gap > ILL * own_rounding(model, some, training, wanted):
                    raise LawBroken("the function stays", f"{gap:.1e} on {mode}; {'; '.join(plan.proof[:2])}")
                rounding = True
            worst = max(worst, gap)
    return worst, rounding


def _gradients(grown: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
    twin = copy.deepcopy(grown)
    twin.requires_grad_(True)
    try:
        with seeded(0):
            outputs = flat(twin(*inputs))
            sum(y.square().sum() for y in outputs.values() if y.is_floating_point() and y.requires_grad).backward()  # type: ignore[union-attr]  # a tensor: some output depends on a weight
    except (RuntimeError, ValueError):
        return
    for name, p in twin.named_parameters():
        if (
            p.grad is not None
            and not bool(p.grad.isfinite().all())
            and all(bool(y.isfinite().all()) for y in outputs.values())
        ):
            raise LawBroken("gradients are finite", name)
