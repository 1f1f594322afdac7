"""The first step of training: does every new entry get a gradient, and do the halves come apart?"""

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
"""Gradients below this part of the model's largest one, in float64, are rounding noise."""


def first_step(
    after: nn.Module, probe: Probe, history: Sequence[Plan], seed: int, *, training: bool = True
) -> tuple[tuple[GradientCheck, ...], tuple[PairCheck, ...], tuple[str, ...]]:
    """Take one step of gradient descent on a copy, in float64, towards random targets.

    Args:
        after: the grown model. Parameters that are frozen stay so.
        probe: what it is given.
        history: the plans that grew it.
        seed: of targets and of operators that draw numbers.
        training: in training mode, or in evaluation mode where only that is claimed.

    Returns:
        What reaches new entries, whether halves come apart, and notes of what could not be watched.
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
    """The gradient of a parameter, those of sparse embeddings written out; None if it has none, or no entries."""
    grad = parameter.grad
    if grad is None or not grad.numel():
        return None
    return grad if grad.layout is torch.strided else grad.to_dense()


def backward(model: nn.Module, probe: Probe, seed: int, epsilon: float) -> tuple[str, str]:
    """Run a model in float64 and backwards from random targets.

    Returns:
        What stands in the way; and what was done instead of a step in training mode. Empty where there is nothing to
        say.
    """
    trouble = Exception()
    for casts in (epsilon, None):  # raised if that can be
        try:
            _backward(model, probe, seed, casts)
        except _NoPath:
            what = "no output depends on a parameter that learns in a way that is differentiated"
            return f"gradients not watched: {what}", ""
        except ValueError as error:  # a batch norm that gets one value per channel
            trouble = error
            if model.training:
                model.eval()
                return backward(model, probe, seed, epsilon)[0], (
                    "the first step of training is watched in evaluation mode: in training mode a model cannot run on "
                    f"these inputs: {_reason(error)}"
                )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a model raises
            trouble = error
        else:
            return "", ""
    return f"gradients not watched: {_reason(trouble)}", ""


def _reason(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


class _NoPath(Exception):
    """No output is reached from a parameter."""


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
    """The mean squared distance of all floating-point outputs from random targets."""
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
            "nor do its old entries (a bias before a batch norm, say)"
            if old <= NOISE
            else "its new entries are multiplied by zero"
        )
    return GradientCheck(name, relative, reached, why)


def _separation(name: str, grad: Tensor | None, edit: TensorEdit) -> list[PairCheck]:
    """Halves start equal (or opposite), so after a step they differ by the difference (or sum) of their gradients."""
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
