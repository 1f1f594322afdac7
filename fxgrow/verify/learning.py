"""The first step of training: does every new entry get a gradient, and do the halves come apart?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..plan import Plan, TensorEdit
from ..plan.layout import leaves, old_positions, partners, size
from .certificate import GradientCheck, PairCheck
from .compare import flat, place, seeded, twin
from .probes import Probe

NOISE = 1e-12
"""Gradients below this part of the model's largest one, in float64, are rounding noise."""


def first_step(
    after: nn.Module, probe: Probe, history: Sequence[Plan], seed: int
) -> tuple[tuple[GradientCheck, ...], tuple[PairCheck, ...]]:
    """Take one step of gradient descent on a copy, in float64 and training mode, towards random targets."""
    model = twin(after, torch.float64, training=True)
    device = next(model.parameters()).device
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    args, kwargs = probe.changed(lambda x: place(x, device, torch.float64))
    try:
        with seeded(seed):
            outputs = model(*args, **kwargs)
    except ValueError:
        model.eval()
        outputs = model(*args, **kwargs)
    loss = loss_of(outputs, seed, device)
    if not loss.requires_grad:
        return (), ()
    loss.backward()
    parameters = dict(model.named_parameters())
    largest = max((float(p.grad.abs().max()) for p in parameters.values() if p.grad is not None), default=0.0)
    gradients, pairs = [], []
    latest = {edit.names[0]: edit for plan in history for edit in plan.tensors}
    for name, edit in latest.items():
        found = next((parameters[n] for n in edit.names if n in parameters), None)
        if found is None or tuple(found.shape) != edit.new:
            continue  # a buffer, or widened again along another axis
        gradients.append(_gradient(name, found, edit, largest))
        pairs.extend(_separation(name, found, edit))
    return tuple(gradients), tuple(pairs)


def loss_of(output: Any, seed: int, device: torch.device) -> Tensor:
    """The mean squared distance of all floating-point outputs from random targets."""
    random = torch.Generator().manual_seed(seed + 1)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for y in flat(output).values():
        if y.is_floating_point():
            target = torch.randn(tuple(y.shape), generator=random, dtype=torch.float64).to(device)
            loss = loss + ((y - target) ** 2).mean()
    return loss


def _gradient(name: str, parameter: nn.Parameter, edit: TensorEdit, largest: float) -> GradientCheck:
    grad = parameter.grad
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


def _separation(name: str, parameter: nn.Parameter, edit: TensorEdit) -> list[PairCheck]:
    """Halves start equal (or opposite), so after a step they differ by the difference (or sum) of their gradients."""
    grad = parameter.grad
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
