"""Defines steps that call functions which torch.fx records as one node, and steps with boolean masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .parts import LAYOUTS, Do, Options, Part

EPSILON = 1e-2


@fx.wrap
def gated(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply every unit by its own gate."""
    return x * torch.sigmoid(gate)


@fx.wrap
def by_width(x: Tensor, axis: int) -> Tensor:
    """Divide by the square root of the number of units."""
    root: float = x.shape[axis] ** 0.5
    return x / root


@fx.wrap
def by_length(x: Tensor, axis: int) -> Tensor:
    """Divide by the root of the mean square of all units."""
    return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + EPSILON)


@fx.wrap
def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positive and the negative parts of every unit."""
    return x.clamp(min=0), x.clamp(max=0)


def _width(xs: Sequence[Tensor], o: Options) -> int:
    return int(xs[0].shape[1 if o["image"] else -1])


def _tail(xs: Sequence[Tensor], o: Options) -> tuple[int, ...]:
    """Return the shape that broadcasts a vector of units along the channel axis."""
    return (-1, *(1,) * (xs[0].dim() - 2)) if o["image"] else (-1,)


def _called(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that calls a function with the units, their number, or a parameter."""
    axis, tail = 1 if o["image"] else xs[0].dim() - 1, _tail(xs, o)

    def call(m: Any, x: Tensor) -> Any:
        match o["kind"]:
            case 0:
                return gated(x, m.gate.view(tail))
            case 1:
                return by_width(x, axis)
            case 2:
                return by_length(x, axis)
            case _:
                up, down = parts(x)
                return up + 0.1 * down

    return Do(call, gate=nn.Parameter(torch.randn(_width(xs, o)))) if o["kind"] == 0 else Do(call)


def _flagged(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that switches some units off by a boolean buffer."""
    tail = _tail(xs, o)

    def call(m: Any, x: Tensor) -> Any:
        keep = m.keep.view(tail)
        match o["kind"]:
            case 0:
                return torch.where(keep, x, torch.zeros_like(x))
            case 1:
                return x.masked_fill(~keep, 0.0)
            case _:
                return x * keep

    return Do(call, keep=torch.arange(_width(xs, o)) % 3 != 1)


FUNCTIONS: dict[str, Part] = {
    "function": Part(takes=LAYOUTS, make=_called),
    "flags": Part(takes=LAYOUTS, make=_flagged, share=1),
}
"""All these kinds of steps, by name."""
KINDS = {"function": 4, "flags": 3}
"""Number of variants of each kind of step."""
