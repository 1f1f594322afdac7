"""Probe inputs: seeded, of the example's shapes, and not only easy ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGE = 100.0
"""Scale of the large probe: enough to saturate activations, far from overflow in float32."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One set of inputs, in float64 on the CPU; `batch_of_one` ones are for evaluation mode only."""

    name: str
    inputs: tuple[Any, ...]
    batch_of_one: bool = False


def probes(examples: Sequence[Any], seed: int) -> tuple[Probe, ...]:
    """Standard normal, large, sparse with mixed signs, constant, and a batch of one.

    Args:
        examples: one value for each input; of tensors the shape counts, and of integer ones their range.
        seed: of the random numbers.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(x: Tensor) -> Tensor:
        return torch.randn(tuple(x.shape), generator=random, dtype=torch.float64)

    def mixed(x: Tensor) -> Tensor:
        y = normal(x)
        return torch.where(y.abs() > 1, y * 3, torch.zeros((), dtype=y.dtype))

    def make(name: str, fill: Any) -> Probe:
        return Probe(name, tuple(_input(x, fill, random) for x in examples))

    first = make("normal", normal)
    one = Probe("batch of one", tuple(x[:1] if isinstance(x, Tensor) and x.dim() else x for x in first.inputs), True)
    return (
        first,
        make("large", lambda x: normal(x) * LARGE),
        make("sparse, mixed signs", mixed),
        make("constant", lambda x: torch.full(tuple(x.shape), 0.5, dtype=torch.float64)),
        one,
    )


def _input(example: Any, fill: Any, random: torch.Generator) -> Any:
    if not isinstance(example, Tensor):
        return example
    if example.is_floating_point():
        return fill(example)
    if example.dtype is torch.bool:
        return torch.rand(tuple(example.shape), generator=random) > 0.5
    real = type(example) is Tensor and not example.is_meta
    high = int(example.max()) + 1 if real and example.numel() else 2
    return torch.randint(0, max(high, 1), tuple(example.shape), generator=random)
