"""Defines steps that do not mix channels: windows, sampling and transforms along other axes, and decisions by sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functions, state
from .images import CONV, rank
from .parts import LAYOUTS, Do, Options, Part

EPSILON = 1e-2


def _along(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step along the last axis of an image, or along time."""
    axis = xs[0].dim() - 1 if o["image"] else 1
    pad = [0, 1] if o["image"] else [0, 0, 0, 1]

    def call(m: nn.Module, x: Tensor) -> Any:
        match o["kind"]:
            case 0:
                return F.pad(x, pad).unfold(axis, 2, 1).amax(-1)
            case 1:
                return F.pad(x, pad).diff(dim=axis)
            case 2:
                return x.sort(axis).values
            case 3:
                waves = torch.fft.rfft(x.double(), dim=axis) * 0.5
                return torch.fft.irfft(waves, n=x.shape[axis], dim=axis).to(x.dtype)
            case 4:
                return x - x.topk(1, axis).values
            case 5:
                return x.roll(1, axis).flip(axis)
            case _:
                return x + torch.logcumsumexp(x, axis)

    return Do(call)


def _whole_slice(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a slice of all channels; its end is a constant, or the width of a layer."""
    n = xs[0].shape[1 if o["image"] else -1]
    tail = (slice(None),) * (xs[0].dim() - 2)

    def call(m: Any, x: Tensor) -> Any:
        stop = m.n if o["kind"] else n
        return x[(slice(None), slice(stop), *tail)] if o["image"] else x[..., :stop]

    made = Do(call)
    vars(made)["n"] = n
    return made


def _direction(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a division of the channels by their length, or their cosine with a parameter."""
    axis, n = 1 if o["image"] else xs[0].dim() - 1, xs[0].shape[1 if o["image"] else -1]
    tail = (1,) * (xs[0].dim() - 2) if o["image"] else ()
    if o["kind"]:
        key = nn.Parameter(torch.randn(n, *tail))
        return Do(lambda m, x: x * F.cosine_similarity(x, m.key[None], axis).unsqueeze(axis), key=key)
    return Do(lambda m, x: F.normalize(x, dim=axis))


def _decided(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make conditions and loops that the example inputs decide."""
    axis = xs[0].dim() - 1 if o["image"] else 1

    def call(m: Any, x: Tensor) -> Any:
        match o["kind"]:
            case 0:
                return x * 2 if x.shape[0] > 1 else x
            case 1:
                return sum(part * 0.5 for part in x.chunk(1, 0)) + x
            case 2:
                return torch.stack([part.relu() for part in x.unbind(axis)], axis)
            case _:
                return x.reshape(*x.shape[:-1], x.shape[-1]) if len(x.shape) < 9 else x

    return Do(call)


def _domain(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make functions of positive numbers, applied to values that are always positive."""
    match o["kind"]:
        case 0:
            return Do(lambda m, x: (x.square() + EPSILON).sqrt())
        case 1:
            return Do(lambda m, x: (x.exp().clamp(max=9.0) + EPSILON).log())
        case _:
            return Do(lambda m, x: torch.rsqrt(x.abs() + 1))


def _sampled(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make patches as channels, a sampled image, or an undone pooling."""

    def patches(m: nn.Module, x: Tensor) -> Any:
        n, c, h, w = x.shape
        return F.unfold(x, 3, padding=1).view(n, c, 9, h, w).mean(2)

    def warped(m: Any, x: Tensor) -> Any:
        grid = F.affine_grid(m.theta.expand(x.shape[0], 2, 3), [x.shape[0], 1, x.shape[2], x.shape[3]], False)
        return F.grid_sample(x, grid, align_corners=False)

    def unpooled(m: nn.Module, x: Tensor) -> Any:
        y: Tensor
        places: Tensor
        y, places = F.max_pool2d(x, 2, return_indices=True)
        unpool: Any = F.max_unpool2d
        return unpool(y, places, 2, output_size=x.shape[2:])

    match o["kind"]:
        case 0:
            return Do(patches)
        case 1:
            return Do(warped, theta=nn.Parameter(torch.tensor([[[0.8, 0.1, 0.05], [-0.1, 0.9, 0.1]]])))
        case _:
            return Do(unpooled)


def _standardised(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a convolution with a standardised weight and a gain."""
    n = xs[0].shape[1]
    conv = CONV[rank(xs[0])](n, n, 3, padding=1)

    def call(m: Any, x: Tensor) -> Any:
        w = m.conv.weight
        axes = tuple(range(1, w.dim()))
        var, mean = torch.var_mean(w, axes, unbiased=False, keepdim=True)
        weight = (w - mean) * torch.rsqrt(var * w[0].numel() + EPSILON) * m.gain
        return m.conv._conv_forward(x, weight, m.conv.bias)

    return Do(call, conv=conv, gain=nn.Parameter(torch.ones(n, *(1,) * (conv.weight.dim() - 1))))


def _is_even_image(x: Tensor) -> bool:
    return rank(x) == 2 and all(n % 2 == 0 for n in x.shape[2:])


MOVES: dict[str, Part] = {
    "along_others": Part(takes=("image", "tokens"), make=_along),
    "whole_slice": Part(takes=LAYOUTS, make=_whole_slice, share=1),
    "direction": Part(takes=LAYOUTS, make=_direction, share=1),
    "decided_by_example": Part(takes=("image", "tokens"), make=_decided, share=1),
    "positive": Part(takes=LAYOUTS, make=_domain, share=1),
    "sampled": Part(takes=("image",), make=_sampled, fits=_is_even_image),
    "standardised_conv": Part(takes=("image",), make=_standardised, share=1),
}
"""All these kinds of steps, by name."""
KINDS = {
    **state.KINDS,
    **functions.KINDS,
    "along_others": 7,
    "whole_slice": 2,
    "direction": 2,
    "decided_by_example": 4,
    "positive": 3,
    "sampled": 3,
    "standardised_conv": 1,
}
"""Number of variants of each kind of step that needs to know the channel axis."""
