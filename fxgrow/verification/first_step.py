"""Simulates the first training step: does every new entry get a gradient, and do the two halves become different?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..plans import Plan, TensorEdit
from ..plans.layout import leaves, old_positions, partners, size
from .certificate import GradientCheck, PairCheck
from .compare import epsilon_of, flat, forward, place, seeded, standing, twin
from .precision import raised
from .probes import Probe

NOISE = 1e-12
"""Gradients below this part of the model's largest one, in float64, are treated as rounding noise."""


def first_step(
    after: nn.Module, probe: Probe, history: Sequence[Plan], seed: int, *, training: bool = True
) -> tuple[tuple[GradientCheck, ...], tuple[PairCheck, ...], tuple[str, ...]]:
    """Take one step of gradient descent on a float64 copy, towards random targets.

    Args:
        after: the grown model. Frozen parameters stay frozen.
        probe: the inputs.
        history: the plans that grew it.
        seed: the seed of the targets and of operators that draw random numbers.
        training: whether the model runs in training mode.

    Returns:
        One check per grown parameter, one per pair of halves, and notes on what could not be checked.
    """
    model = twin(after, torch.float64, training=training)
    parameters = dict(model.named_parameters())
    latest = {edit.names[0]: edit for plan in history for edit in plan.tensors}
    grown = {
        name: (found, edit)
        for name, edit in latest.items()
        if (found := next((parameters[n] for n in edit.names if n in parameters), None)) is not None
        and tuple(found.shape) == edit.new  # else a buffer, or widened again along another axis
    }
    trouble, instead = backward(model, probe, seed, epsilon_of(after))
    frozen = {name for name, (found, _) in grown.items() if not found.requires_grad}
    checks = [GradientCheck(name, 0.0, False, "it is frozen", True) for name in grown if name in frozen]
    notes = tuple(note for note in (instead, trouble) if note)
    if trouble:
        return tuple(checks), (), notes if len(frozen) < len(grown) else ()
    largest = max((float(g.abs().max()) for p in parameters.values() if (g := dense(p)) is not None), default=0.0)
    pairs = []
    for name, (found, edit) in grown.items():
        if name not in frozen:
            checks.append(_gradient(name, dense(found), edit, largest))
            pairs.extend(_separation(name, dense(found), edit))
    return tuple(checks), tuple(pairs), notes


def dense(parameter: nn.Parameter) -> Tensor | None:
    """Return the gradient of a parameter as a dense tensor; None if it has no gradient or no entries."""
    grad = parameter.grad
    if grad is None or not grad.numel():
        return None
    return grad if grad.layout is torch.strided else grad.to_dense()


def backward(model: nn.Module, probe: Probe, seed: int, epsilon: float) -> tuple[str, str]:
    """Run a model forward in float64 and backward from random targets.

    Returns:
        The reason why there are no gradients, and a note if evaluation mode replaced training mode; each "" if it does
        not apply.
    """
    trouble = Exception()
    for casts in (epsilon, None):  # casts are raised to float64 if the model allows it
        try:
            _backward(model, probe, seed, casts)
        except _NoPath:
            what = "no output depends on a parameter with requires_grad=True through differentiable operations"
            return f"gradients not checked: {what}", ""
        except ValueError as error:  # a batch norm in training mode got one value per channel
            trouble = error
            if model.training:
                model.eval()
                return backward(model, probe, seed, epsilon)[0], (
                    "the first training step is checked in evaluation mode: in training mode the model cannot run on "
                    f"these inputs: {_reason(error)}"
                )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model may raise anything
            trouble = error
        else:
            return "", ""
    return f"gradients not checked: {_reason(trouble)}", ""


def _reason(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


class _NoPath(Exception):
    """No output depends on a parameter that learns."""


def _backward(model: nn.Module, probe: Probe, seed: int, epsilon: float | None) -> None:
    model.zero_grad(set_to_none=True)
    device, _ = standing(model)
    inputs = probe.given.changed(lambda x: place(x, device, torch.float64))
    with raised(epsilon) if epsilon is not None else nullcontext(), torch.enable_grad():
        with seeded(seed):
            outputs = forward(model, inputs)
        loss = loss_of(outputs, seed, device)
        if not loss.requires_grad:
            raise _NoPath
        if not bool(loss.isfinite()):
            raise ArithmeticError("the outputs are not finite")
        loss.backward()


def loss_of(output: Any, seed: int, device: torch.device) -> Tensor:
    """Return the mean squared distance of all floating-point outputs from random targets."""
    random = torch.Generator().manual_seed(seed + 1)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for y in flat(output).values():
        if y.is_floating_point() and y.numel():
            target = torch.randn(tuple(y.shape), generator=random, dtype=torch.float64).to(device)
            loss = loss + ((y - target) ** 2).mean()
    return loss


def _gradient(name: str, grad: Tensor | None, edit: TensorEdit, largest: float) -> GradientCheck:
    new = 0.0
    if grad is not None:
        for growth in edit.axes:
            fresh = sorted(set(range(size(growth.layout, new=True))) - set(old_positions(growth.layout)))
            block = grad.index_select(growth.axis, torch.tensor(fresh, device=grad.device))
            new = max(new, float(block.abs().max()) if block.numel() else 0.0)
    relative = new / largest if largest > 0 else 0.0
    reached = relative > NOISE
    why = ""
    if not reached:
        old = float(grad.abs().max()) / largest if grad is not None and largest > 0 else 0.0
        why = (
            "its old entries get none either (a bias before a batch norm, for example)"
            if old <= NOISE
            else "its new entries are multiplied by zero"
        )
    return GradientCheck(name, relative, reached, why)


def _separation(name: str, grad: Tensor | None, edit: TensorEdit) -> list[PairCheck]:
    """Halves start equal (or opposite), so a step separates them by the difference (or sum) of their gradients."""
    if grad is None:
        return []
    results = []
    scale = float(grad.abs().max())
    for growth in edit.axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            left, right, _ = partners(growth.layout, number)
            if leaf.state not in ("even", "odd") or not left:
                continue
            a, b = _take(grad, growth.axis, left), _take(grad, growth.axis, right)
            apart = float((a - b if leaf.state == "even" else a + b).abs().max())
            relative = apart / scale if scale > 0 else 0.0
            results.append(PairCheck(name, relative, relative > NOISE))
    return results


def _take(tensor: Tensor, axis: int, places: list[int]) -> Tensor:
    return tensor.index_select(axis, torch.tensor(places, device=tensor.device))
