"""Run models for the laws: on which inputs, in which mode, and how much rounding alone moves what they return."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...verify.compare import distance, flat, seeded

LAST_PLACE = 2.0**-52


def probes(inputs: Sequence[Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
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


def outputs(model: nn.Module, inputs: Sequence[Tensor], training: bool) -> dict[str, Tensor] | None:
    """What a copy of a model returns and leaves in its buffers; None if it cannot run (a norm of one number)."""
    twin = copy.deepcopy(model).train(training)
    try:
        with torch.no_grad(), seeded(0):
            return flat(twin(*inputs))
    except (RuntimeError, ValueError):
        return None


def own_rounding(model: nn.Module, inputs: Sequence[Tensor], training: bool, wanted: dict[str, Tensor]) -> float:
    """How far the outputs move when inputs and weights change in their last place."""
    random = torch.Generator().manual_seed(2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1 + LAST_PLACE * (2 * torch.rand(p.shape, generator=random, dtype=p.dtype) - 1))
    moved = tuple(x + LAST_PLACE * x.abs().max() if x.is_floating_point() else x for x in inputs)  # zeros move, too
    found = outputs(twin, moved, training)
    return max((distance(wanted[k], found[k]) for k in wanted), default=0.0) if found else float("inf")
