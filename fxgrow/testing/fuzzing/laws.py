"""The laws of growth: one oracle for every model and every growth.

* the function stays, in float64, in evaluation mode and, unless the plan says otherwise, in training mode;
* the model that is grown stays as it is, bit for bit; of one that is refused, too;
* a plan that has been text makes the same bits, in place as well as on a copy;
* shapes, widths and the number of parameters are what the plan predicts;
* the gradient of every parameter is finite;
* nothing but a refusal or a usage error is ever raised, and a proof stands in every plan that is not refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import FxgrowError, GrowthRefused, Kind, UsageError
from ...plan import Plan
from ...plan.layout import old_positions
from ...rewrite import apply
from ...rewrite.apply import tensors_of
from ...verify.certificate import FLOAT64_BOUND
from ...verify.compare import distance, flat, seeded
from ..bits import contents, snapshot
from .growths import Growth, plan_of

ILL = 1e4
"""A difference below this many times what a change of the input in its last place makes is rounding: networks with
norms over few, nearly equal numbers multiply rounding errors."""
LAST_PLACE = 2.0**-52


class LawBroken(AssertionError):
    """fxgrow did what it never may."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law


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
    _proved(plan, grown, inputs)
    _predicted(plan, model, grown)
    _repeatable(plan, model, grown)
    gap, rounding = _preserved(plan, model, grown, inputs)
    _gradients(grown, inputs)
    _untouched(model, before)
    scheme = plan.scheme if not plan.then else "several"
    return Seen(growth, None, False, scheme, gap, rounding, bool(_eval_only(plan))), grown


def _untouched(model: fx.GraphModule, before: dict[str, Any]) -> None:
    now = snapshot(model)
    if now != before:
        changed = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        raise LawBroken("the model that is grown stays as it is", ", ".join(changed[:5]))


def _steps(plan: Plan) -> Iterator[Plan]:
    yield plan
    yield from plan.then


def _eval_only(plan: Plan) -> tuple[str, ...]:
    return tuple(node for p in _steps(plan) for node in p.eval_only)


def _proved(plan: Plan, grown: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
    """Only where nothing reads the new units (of a part that is cut off, say) there is nothing to prove."""
    for p in _steps(plan):
        if not p.proof and (p.inserts or _reached(p, grown, inputs)):
            raise LawBroken("a plan holds its proof", p.title)


def _reached(plan: Plan, grown: fx.GraphModule, inputs: Sequence[Tensor]) -> bool:
    """Whether some output depends on new entries."""
    twin = copy.deepcopy(grown).requires_grad_(True)
    with seeded(0):
        sum((y.square().sum() for y in flat(twin(*inputs)).values()), torch.zeros(())).backward()
    for edit in plan.tensors:
        tensor = tensors_of(twin)[edit.names[0]]
        if tensor.grad is not None:
            changed = tensor.grad.clone()
            old = torch.ones(edit.old, dtype=torch.bool)
            for growth in edit.axes:
                shape = list(old.shape)
                shape[growth.axis] = edit.new[growth.axis]
                places = torch.tensor(old_positions(growth.layout))
                old = torch.zeros(shape, dtype=torch.bool).index_copy(growth.axis, places, old)
            if bool(changed[~old].any()):
                return True
    return False


def _predicted(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    law = "a plan predicts what it makes"
    tensors = tensors_of(grown)
    last = {name: edit.new for p in _steps(plan) for edit in p.tensors for name in edit.names}
    last |= {f"{i.name}.{t.name}": t.shape for p in _steps(plan) for i in p.inserts for t in i.tensors if not plan.then}
    for name, shape in last.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise LawBroken(law, f"{name} is {tuple(tensors[name].shape)}, not {shape}")
    parameters = sum(p.numel() for p in grown.parameters())
    if parameters != [*_steps(plan)][-1].after.parameters:
        raise LawBroken(law, f"{parameters} parameters, not {[*_steps(plan)][-1].after.parameters}")
    if parameters <= sum(p.numel() for p in model.parameters()):
        raise LawBroken("what grows is larger", f"{parameters} parameters as before")


def _repeatable(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    try:
        text = plan.to_json()
        read = Plan.from_json(text)
        again = apply(read, copy.deepcopy(model), inplace=True)
    except Exception as error:
        raise LawBroken("a plan can be kept as text", f"{type(error).__name__}: {error}") from error
    if read != plan or read.to_json() != text:
        raise LawBroken("a plan can be kept as text", "it reads as another plan")
    a, b = contents(grown), contents(again)
    if a != b:
        raise LawBroken("a plan makes the same bits again", ", ".join(k for k in {**a, **b} if a.get(k) != b.get(k)))


def _preserved(
    plan: Plan, model: fx.GraphModule, grown: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[float, bool]:
    modes = (False,) if _eval_only(plan) else (False, True)
    probes = [*_probes(inputs)]
    worst, rounding = 0.0, False
    for training in modes:
        for which, some in probes:
            wanted = _outputs(model, some, training)
            if wanted is None:
                continue
            found = _outputs(grown, some, training)
            mode = f"{which} inputs, {'training' if training else 'evaluation'} mode"
            if found is None:
                raise LawBroken("the function stays", f"the grown model cannot run on {mode}")
            if wanted.keys() != found.keys() or any(wanted[k].shape != found[k].shape for k in wanted):
                raise LawBroken("the interface stays", mode)
            gap = max(distance(wanted[k], found[k]) for k in wanted)
            if gap > FLOAT64_BOUND:
                if gap > ILL * _own_rounding(model, some, training, wanted):
                    raise LawBroken("the function stays", f"{gap:.1e} on {mode}; {'; '.join(plan.proof[:2])}")
                rounding = True
            worst = max(worst, gap)
    return worst, rounding


def _probes(inputs: Sequence[Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    random = torch.Generator().manual_seed(1)
    yield "given", tuple(inputs)
    yield (
        "large, sparse",
        tuple(
            torch.where(torch.rand(x.shape, generator=random) < 0.5, x * 30, torch.zeros_like(x))
            if x.is_floating_point()
            else x.flip(0)
            for x in inputs
        ),
    )


def _outputs(model: nn.Module, inputs: Sequence[Tensor], training: bool) -> dict[str, Tensor] | None:
    """What a copy of a model returns and leaves in its buffers; None if it cannot run (a norm of one number)."""
    twin = copy.deepcopy(model).train(training)
    try:
        with torch.no_grad(), seeded(0):
            return flat(twin(*inputs))
    except (RuntimeError, ValueError):
        return None


def _own_rounding(model: nn.Module, inputs: Sequence[Tensor], training: bool, wanted: dict[str, Tensor]) -> float:
    """How far the outputs move when inputs and weights change in their last place."""
    random = torch.Generator().manual_seed(2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1 + LAST_PLACE * (2 * torch.rand(p.shape, generator=random, dtype=p.dtype) - 1))
    moved = tuple(x + LAST_PLACE * x.abs().max() if x.is_floating_point() else x for x in inputs)  # zeros move, too
    found = _outputs(twin, moved, training)
    return max((distance(wanted[k], found[k]) for k in wanted), default=0.0) if found else float("inf")


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
