"""Checks the laws of growth: one oracle for every model and every growth.

* the function stays, in float64, in evaluation mode and, unless the plan says otherwise, in training mode and after it,
  for the example's sizes and for others; outputs are compared with those of the original module, not of its trace;
* the model that is grown stays unchanged, bit for bit, also if the growth is refused;
* a plan restored from JSON makes the same bits, in place and on a copy;
* old entries are unchanged, or scaled or shared as planned; tensors that the plan does not name are not written;
* shapes, widths and the number of parameters match the plan;
* tied weights stay tied;
* the dtype and memory format of every tensor stay;
* new weights are not all zero unless their state is zero, no two tensors get the same values, padding rows stay zero;
* the gradient of every parameter is finite, and torch gives no new warnings;
* only refusals and usage errors are raised, and every plan contains a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn.modules.instancenorm import _InstanceNorm

from ...errors import FxgrowError, GrowthRefused, Kind, Refusal, UsageError, usage
from ...plans import Plan
from ...rewrite import apply
from ...verification.certificate import FLOAT64_BOUND
from ...verification.compare import distance
from ..bits import snapshot
from .growths import Growth, plan_of
from .novel import novel
from .promises import LawBroken, claimed, eval_only, kept, predicted, proved, repeatable, tied
from .running import Inputs, Outputs, Stand, probes, tensors_in

UNUSED = "num_features, which is not used"
"""torch's warning about a norm without parameters whose declared width differs from its input."""
ILL = 1e4
"""A difference counts as rounding if it is at most this many times the effect of a last-place change of the input:
networks with norms over few, nearly equal numbers amplify rounding errors."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of one growth of one model that broke no law."""

    growth: Growth
    refusal: Kind | None
    misuse: bool = False
    """Whether the growth was refused because the call is invalid, not because the function would change."""
    scheme: str = ""
    error: float = 0.0
    """The largest relative difference in float64."""
    rounding: bool = False
    """Whether the difference is above the bound of 1e-10, but explained by the network's own rounding."""
    eval_only: bool = False
    plan: Plan | None = None
    further: bool = False
    """Whether the laws that take longer were checked too."""
    told: Refusal | None = None
    """The complete refusal."""
    forced: bool = False
    """Whether a refused growth could be applied by force."""
    harmless: str = ""
    """If forcing it changed nothing: the operator and the states."""


def watch(
    model: fx.GraphModule,
    inputs: Inputs,
    growth: Growth,
    *,
    stand: Stand | None = None,
    second: Inputs | None = None,
) -> tuple[Seen, fx.GraphModule | None]:
    """Grow a traced model in float64 and check all laws.

    Args:
        model: the model; it stays unchanged.
        inputs: its inputs, in float64.
        growth: the growth.
        stand: runs the model, or the module that it was traced from; a new one by default.
        second: inputs of other sizes, for which the function must stay too.

    Returns:
        What was seen, and the grown model, or None if the growth was refused.

    Raises:
        LawBroken: a law does not hold.
        UsageError: the model is not in float64.
    """
    _real(model, inputs)
    before = snapshot(model)
    try:
        plan = plan_of(growth, model)
        grown = apply(plan, model)
    except (GrowthRefused, UsageError) as error:
        _untouched(model, before)
        if error.kind is Kind.CHECK_FAILED:
            raise LawBroken("a growth is made or refused", str(error)) from error
        if not str(error).startswith(error.kind.value) or not error.refusal.hint:
            raise LawBroken("a refusal says what to do", str(error)) from error
        return Seen(growth, error.kind, isinstance(error, UsageError), told=error.refusal), None
    except FxgrowError as error:
        raise LawBroken("a growth is made or refused", str(error)) from error
    except Exception as error:
        raise LawBroken("a growth is made or refused", f"{type(error).__name__}: {error}") from error
    _untouched(model, before)
    first, ran = stand or Stand(model), Stand(grown)
    proved(plan, ran, inputs)
    predicted(plan, model, grown)
    tied(model, grown)
    kept(plan, model, grown)
    novel(plan, model, grown)
    repeatable(plan, model, grown, ran, inputs)
    shown = [*probes(inputs), *([("other sizes", second)] if second is not None else [])]
    gap, rounding = _preserved(plan, first, ran, shown)
    new = {told for told in ran.warned - first.warned if UNUSED not in told or not _shared_norm(model)}
    if new:
        raise LawBroken("a grown model has nothing new to warn of", "; ".join(sorted(new)))
    _gradients(ran, inputs)
    _untouched(model, before)
    scheme = plan.scheme if not plan.then else "several"
    return Seen(growth, None, False, scheme, gap, rounding, bool(eval_only(plan)), plan), grown


def _real(model: fx.GraphModule, inputs: Inputs) -> None:
    """Check that the model and its inputs are in float64."""
    named = [
        *model.named_parameters(),
        *model.named_buffers(),
        *((f"input {k}", x) for k, x in enumerate(tensors_in(inputs))),
    ]
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.dtype is not torch.float64:
            raise usage(
                Kind.BAD_INPUTS,
                f"the laws require float64, but {name} has dtype {str(tensor.dtype).removeprefix('torch.')}",
                hint="call model.double() before tracing it, and use float64 inputs",
            )


def _untouched(model: fx.GraphModule, before: dict[str, Any]) -> None:
    now = snapshot(model)
    if now != before:
        changed = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        raise LawBroken("the model that is grown stays as it is", ", ".join(changed[:5]))


def _preserved(plan: Plan, model: Stand, grown: Stand, shown: Sequence[tuple[str, Inputs]]) -> tuple[float, bool]:
    worst, rounding = 0.0, False
    for training in claimed(plan):
        for which, some in shown:
            wanted = model.outputs(some, training, which)
            if wanted is None:
                continue
            found = grown.outputs(some, training, which)
            mode = f"{which} inputs, {'training' if training else 'evaluation'} mode"
            if found is None:
                raise LawBroken("the function stays", f"the grown model cannot run on {mode}")
            if wanted.keys() != found.keys() or any(wanted[k].shape != found[k].shape for k in wanted):
                raise LawBroken("the interface stays", mode)
            gap = max(distance(wanted[k], found[k]) for k in wanted)
            if gap > FLOAT64_BOUND:
                if not rounds_so(gap, (model, wanted), (grown, found), some, training):
                    raise LawBroken("the function stays", f"{gap:.1e} on {mode}; {'; '.join(plan.proof[:2])}")
                rounding = True
            worst = max(worst, gap)
    return worst, rounding


def rounds_so(
    gap: float, old: tuple[Stand, Outputs], new: tuple[Stand, Outputs], inputs: Inputs, training: bool
) -> bool:
    """Whether one of two networks amplifies rounding enough to explain a difference of their outputs.

    This may be the grown one: where old entries gave exact zeros, halves cancel up to rounding, and norms amplify that.
    """
    return gap <= ILL * max(stand.own_rounding(inputs, training, known) for stand, known in (old, new))


def _shared_norm(model: fx.GraphModule) -> bool:
    """Whether a norm without parameters is called more than once: after growth it may then read two widths."""
    called = Counter(str(n.target) for n in model.graph.nodes if n.op == "call_module")
    modules = dict(model.named_modules(remove_duplicate=False))
    return any(n > 1 and isinstance(modules[name], _InstanceNorm) for name, n in called.items())


def _gradients(grown: Stand, inputs: Inputs) -> None:
    try:
        twin, found = grown.gradients(inputs)
    except (RuntimeError, ValueError):
        return
    if not all(bool(y.isfinite().all()) for y in found.values()):
        return
    for name, p in twin.named_parameters():
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            raise LawBroken("gradients are finite", name)
