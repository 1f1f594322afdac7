"""Subtracts requested noise from a grown model; the result must compute the function of the model before growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from ..plans import Plan
from ..rewrite import apply
from ..rewrite.apply import tensors_of
from .compare import twin


def without_noise(base: fx.GraphModule, after: nn.Module, history: Sequence[Plan]) -> nn.Module:
    """Return a copy of a grown model without the noise that its plans added, and otherwise unchanged.

    The growths are applied twice to the model before, with noise and without; the difference is subtracted from the
    grown model. Only this noise is removed: the effect of training, or a wrong entry, remains.

    Args:
        base: the model before growth, traced.
        after: the grown model.
        history: the plans that lead from one to the other.

    Raises:
        Exception: the plans do not fit the model.
    """
    loud, still = base, base
    for plan in history:
        loud = apply(replace(plan, then=()), loud, checked=True)
        still = apply(replace(plan, then=(), noise=0.0), still, checked=True)
    noisy, plain = tensors_of(loud), tensors_of(still)
    made = twin(after, None, training=after.training)
    with torch.no_grad():
        for name, tensor in tensors_of(made).items():
            if name in plain and tensor.shape == plain[name].shape and not torch.equal(noisy[name], plain[name]):
                tensor.copy_(_without(tensor, noisy[name], plain[name]))
    return made


def _without(now: Tensor, noisy: Tensor, plain: Tensor) -> Tensor:
    """Subtract the noise; entries that are as the growth left them become their noise-free values, bit for bit."""
    noisy, plain = (x.to(now.device) for x in (noisy, plain))
    difference = noisy.to(torch.float64) - plain.to(torch.float64)
    return torch.where(now == noisy, plain, (now.to(torch.float64) - difference).to(now.dtype))
