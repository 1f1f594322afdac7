"""Defines steps for values of any layout: pointwise functions, sums and products, splits and concatenations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choose import Choose
from .functions import FUNCTIONS
from .images import IMAGES, MOST
from .moves import KINDS, MOVES
from .parts import LAYOUTS, Do, Options, Part, divisors, same_shape
from .state import STATE
from .vectors import VECTORS

POINTWISE: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.Tanh,
    nn.GELU,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.SiLU,
    nn.Hardtanh,
    nn.ELU,
    nn.Softplus,
    nn.Identity,
    nn.Dropout,
    lambda: Do(lambda m, x: F.relu(x)),
    lambda: Do(lambda m, x: x * torch.sigmoid(x)),
    lambda: Do(lambda m, x: 2 - x),
    lambda: Do(lambda m, x: x.abs() * 0.5),
    lambda: Do(lambda m, x: x.clamp(-1, 1)),
    lambda: Do(lambda m, x: x * x),
)
BINARY: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    torch.maximum,
    lambda x, y: x + 0.5 * y,
)


def _axis(xs: Sequence[Tensor], o: Options) -> int:
    return 1 if o["image"] else xs[0].dim() - 1


def _pieces(choose: Choose, xs: Sequence[Tensor], axis: int) -> int:
    return choose.pick(divisors(xs[0].shape[axis])[1:4])


def _prelu(xs: Sequence[Tensor], o: Options) -> nn.Module:
    return nn.PReLU(xs[0].shape[1])


def _cat(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis = _axis(xs, o)
    return Do(lambda m, *ys: torch.cat(ys, axis))


def _chunk(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis = _axis(xs, o)
    return Do(lambda m, x: x.chunk(o["pieces"], axis))


def _split(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis, at = _axis(xs, o), o["at"]
    sizes = [at, xs[0].shape[axis] - at]
    return Do(lambda m, x: x.split(sizes, axis))


def _slice(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis, at = _axis(xs, o), o["at"]
    before = (slice(None),) * axis
    return Do(lambda m, x: x[(*before, slice(None, at))] if o["front"] else x[(*before, slice(at, None))])


def _glu(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis = _axis(xs, o)
    if o["fused"]:
        return Do(lambda m, x: F.glu(x, axis))

    def call(m: nn.Module, x: Tensor) -> Any:
        a, b = x.chunk(2, axis)
        return a * torch.sigmoid(b)

    return Do(call)


def _normalise(xs: Sequence[Tensor], o: Options) -> nn.Module:
    axis = _axis(xs, o)
    return Do(lambda m, x: x - x.mean(axis, keepdim=True))


COMMON: dict[str, Part] = {
    "pointwise": Part(
        takes=LAYOUTS,
        make=lambda xs, o: POINTWISE[o["kind"]](),
        options=lambda c, xs, w: {"kind": c.integer(0, len(POINTWISE) - 1)},
        share=14,
    ),
    "prelu": Part(takes=("image", "flat"), make=_prelu, share=1),
    "binary": Part(
        takes=LAYOUTS,
        make=lambda xs, o: Do(lambda m, x, y: BINARY[o["kind"]](x, y)),
        options=lambda c, xs, w: {"kind": c.pick((0, 0, 0, 1, 2, 3, 4))},
        mate=same_shape,
        share=16,
    ),
    "chunk": Part(takes=LAYOUTS, make=_chunk, share=2),
    "split": Part(takes=LAYOUTS, make=_split, share=2),
    "slice": Part(takes=LAYOUTS, make=_slice, share=2),
    "glu": Part(takes=LAYOUTS, make=_glu, share=2),
    "minus_mean": Part(takes=LAYOUTS, make=_normalise, share=1),
    "cat": Part(takes=LAYOUTS, make=_cat, most=2, share=5),
}
"""All these kinds of steps, by name. `channel_options`, which knows the layout, draws options about the channel
axis."""


def channel_options(name: str, choose: Choose, xs: Sequence[Tensor], image: bool) -> dict[str, int] | None:
    """Draw the options of steps along the channel axis; None if the operands do not allow the step."""
    axis = 1 if image else xs[0].dim() - 1
    n = xs[0].shape[axis]
    told = {"image": int(image)}
    match name:
        case "chunk":
            return {**told, "pieces": choose.pick(divisors(n)[1:3])} if n > 1 else None
        case "split":
            return {**told, "at": choose.integer(1, n - 1)} if n > 1 else None
        case "slice":
            return {**told, "at": choose.integer(1, n - 1), "front": choose.integer(0, 1)} if n > 1 else None
        case "glu":
            return {**told, "fused": choose.integer(0, 1)} if n % 2 == 0 else None
        case "cat":
            return told if sum(x.shape[axis] for x in xs) <= MOST else None
        case _ if name in KINDS:
            return {**told, "kind": choose.integer(0, KINDS[name] - 1)}
        case _:
            return told


ALONG_CHANNELS = frozenset({"chunk", "split", "slice", "glu", "minus_mean", "cat", *KINDS})
PARTS: dict[str, Part] = {**IMAGES, **VECTORS, **COMMON, **STATE, **MOVES, **FUNCTIONS}
"""Every kind of step except those that use the weights of earlier steps (`again`, `tied`)."""
