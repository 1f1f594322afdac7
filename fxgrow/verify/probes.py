"""Probe inputs: seeded, of the example's shapes, and not only easy ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ..capture.call import Call

LARGE = 100.0
"""Scale of the large probe: enough to saturate activations, far from overflow in float32."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One set of inputs, in float64 on the CPU; `batch_of_one` ones are for evaluation mode only."""

    name: str
    inputs: tuple[Any, ...]
    batch_of_one: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, change: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional arguments and those by name, with other tensors and plain values."""
        call = Call(self.inputs, self.kwargs).changed(change)
        return call.args, dict(call.kwargs)


def probes(examples: Sequence[Any] | Call, seed: int, rows: Mapping[int, int] | None = None) -> tuple[Probe, ...]:
    """Standard normal, large, sparse with mixed signs, constant, and a batch of one.

    Args:
        examples: what the model is called with; of tensors the shape counts.
        seed: of the random numbers.
        rows: below which numbers whole ones are drawn, by number among all tensors and plain values of the call
            (`lookups.rows_read`); where nothing is said, up to the largest of the example.
    """
    random = torch.Generator().manual_seed(seed)
    call = examples if isinstance(examples, Call) else Call(tuple(examples))

    def normal(x: Tensor) -> Tensor:
        return torch.randn(tuple(x.shape), generator=random, dtype=torch.float64)

    def mixed(x: Tensor) -> Tensor:
        y = normal(x)
        return torch.where(y.abs() > 1, y * 3, torch.zeros((), dtype=y.dtype))

    def make(name: str, fill: Any) -> Probe:
        number = count()
        made = call.changed(lambda x: _input(x, fill, random, (rows or {}).get(next(number))))
        return Probe(name, made.args, kwargs=made.kwargs)

    first = make("normal", normal)
    args, kwargs = first.changed(lambda x: x[:1] if isinstance(x, Tensor) and x.dim() else x)
    one = Probe("batch of one", args, True, kwargs)
    return (
        first,
        make("large", lambda x: normal(x) * LARGE),
        make("sparse, mixed signs", mixed),
        make("constant", lambda x: torch.full(tuple(x.shape), 0.5, dtype=torch.float64)),
        one,
    )


def whole(x: Any) -> bool:
    """Whether an input is a tensor of whole numbers."""
    return isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)


def _input(example: Any, fill: Any, random: torch.Generator, rows: int | None) -> Any:
    if not isinstance(example, Tensor):
        return example
    if example.is_floating_point():
        return fill(example)
    if example.is_complex():
        return torch.complex(fill(example), fill(example))
    if example.dtype is torch.bool:
        return torch.rand(tuple(example.shape), generator=random) > 0.5
    return torch.randint(0, rows or largest(example) + 1, tuple(example.shape), generator=random)


def largest(example: Tensor) -> int:
    """The largest whole number in an example; 1 where its numbers are not known."""
    real = type(example) is Tensor and not example.is_meta
    return max(int(example.max()), 0) if real and example.numel() else 1
