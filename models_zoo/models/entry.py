"""`Entry`, one model of the catalogue, and functions that make example inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 5
"""Number of samples in every example input. No model of the zoo has this many channels, so the two cannot be
confused."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo: how to build it, its example inputs, and the refusals that it demonstrates.

    ``build`` creates it with new weights from the global random state, which the caller seeds. ``example_inputs``
    returns the same tensors on every call and does not change that state. ``refuses`` holds the kinds of refusal that
    the model demonstrates, empty if there are none; the class docstring names the refused layer.
    """

    name: str
    build: Callable[[], nn.Module]
    example_inputs: Callable[[], tuple[Tensor, ...]]
    reason: str
    refuses: tuple[str, ...] = ()


def normal(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that makes example inputs of normal noise: one tensor per shape, with the batch dimension
    first."""

    def draw() -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(BATCH, *shape, generator=generator) for shape in shapes)

    return draw


def tokens() -> tuple[Tensor, ...]:
    """Return nine token ids per sample."""
    return (torch.randint(0, 24, (BATCH, 9), generator=torch.Generator().manual_seed(0)),)
