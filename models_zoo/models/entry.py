"""One line of the zoo's table of contents, and inputs to run its models on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 5
"""Samples in every example input: a number that is no channel count in the zoo, so the two cannot be confused."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo.

    ``build`` makes it with fresh weights from the global random state, which the caller seeds. ``example_inputs``
    returns the same tensors on every call and leaves that state alone. ``refuses`` holds the kinds of refusal that the
    model demonstrates, empty where it has none to show; which layer is refused stands in the class docstring.
    """

    name: str
    build: Callable[[], nn.Module]
    example_inputs: Callable[[], tuple[Tensor, ...]]
    reason: str
    refuses: tuple[str, ...] = ()


def normal(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Makes example inputs of normal noise: one tensor a shape, with the batch in front."""

    def draw() -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(BATCH, *shape, generator=generator) for shape in shapes)

    return draw


def tokens() -> tuple[Tensor, ...]:
    """Nine token numbers a sample."""
    return (torch.randint(0, 24, (BATCH, 9), generator=torch.Generator().manual_seed(0)),)
