"""Defines steps that depend on the mode, keep state in buffers, or compute with sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choose import Choose
from .images import BATCH, CONV, rank
from .parts import LAYOUTS, Do, Options, Part
from .vectors import split_heads

RATE = 0.5
EPSILON = 1e-3


class KeptInEval(nn.Module):
    """A norm that stays in evaluation mode, as in fine-tuned detectors."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.train(self.training)

    def train(self, mode: bool = True) -> KeptInEval:
        """Set the mode of everything except the norm."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        """Apply the norm."""
        return self.norm(x)


def _width(xs: Sequence[Tensor], o: Options) -> int:
    return int(xs[0].shape[1 if o["image"] else -1])


def _tail(xs: Sequence[Tensor], o: Options) -> tuple[int, ...]:
    """Return the shape that broadcasts a vector of channels along their axis."""
    return (-1, *(1,) * (xs[0].dim() - 2)) if o["image"] else (-1,)


def _others(xs: Sequence[Tensor], o: Options) -> tuple[int, ...]:
    """Return all axes except the channel axis."""
    return tuple(k for k in range(xs[0].dim()) if k != (1 if o["image"] else xs[0].dim() - 1))


def _statistics(n: int) -> dict[str, Tensor]:
    return {"running_mean": torch.zeros(n), "running_var": torch.ones(n)}


def _affine(n: int) -> dict[str, nn.Parameter]:
    return {"weight": nn.Parameter(torch.ones(n)), "bias": nn.Parameter(torch.zeros(n))}


def _dropout(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a dropout whose flag follows the mode, whose rate does, or whose flag is inverted."""
    match o["kind"]:
        case 0:
            return Do(lambda m, x: F.dropout(x, RATE, m.training))
        case 1:
            return Do(lambda m, x: F.dropout(x, RATE if m.training else 0.0))
        case _:
            return Do(lambda m, x: F.dropout(x, RATE, not m.training))


def _batch_norm(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a batch norm whose flag follows the mode, whose momentum does too, or whose flag is inverted."""

    def call(m: Any, x: Tensor) -> Tensor:
        flag = m.training if o["kind"] < 2 else not m.training
        momentum = (0.2 if m.training else 0.0) if o["kind"] == 1 else 0.1
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, flag, momentum)

    n = _width(xs, o)
    return Do(call, **_statistics(n), **_affine(n))


def _scaled(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step without parameters that differs between the modes."""
    if o["kind"]:
        return Do(lambda m, x: x if m.training else 2 * x)
    return Do(lambda m, x: x * 0.5 if m.training else x)


def _kept(xs: Sequence[Tensor], o: Options) -> nn.Module:
    norm = BATCH[rank(xs[0])] if o["image"] else nn.BatchNorm1d
    return KeptInEval(norm(_width(xs, o)))


def _branch(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a layer that runs only in training mode, so that no single graph covers both modes."""
    n = _width(xs, o)
    extra = CONV[rank(xs[0])](n, n, 1) if o["image"] else nn.Linear(n, n)
    return Do(lambda m, x: x + m.extra(x) if m.training else x, extra=extra)


def _by_hand(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a norm with running statistics: used and updated in both modes, or used as in a batch norm."""
    axes, tail = _others(xs, o), _tail(xs, o)

    def call(m: Any, x: Tensor) -> Any:
        mean, var = m.running_mean, m.running_var
        if m.training or not o["kind"]:
            now, spread = x.mean(axes), x.var(axes, unbiased=False)
            mean.mul_(0.9).add_(0.1 * now.detach())
            var.mul_(0.9).add_(0.1 * spread.detach())
            mean, var = (now, spread) if o["kind"] else (mean, var)
        return (x - mean.view(tail)) / (var.view(tail) + EPSILON).sqrt() * m.weight.view(tail)

    n = _width(xs, o)
    return Do(call, **_statistics(n), weight=nn.Parameter(torch.ones(n)))


def _frozen(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a batch norm whose weights are buffers, combined before they are applied."""
    tail = _tail(xs, o)

    def call(m: Any, x: Tensor) -> Tensor:
        root = (m.running_var + EPSILON).sqrt()
        scale: Tensor = m.scale / root if o["kind"] else m.scale * (m.running_var + EPSILON).rsqrt()
        shift: Tensor = m.shift - m.running_mean * scale
        return x * scale.view(tail) + shift.view(tail)

    n = _width(xs, o)
    return Do(call, **_statistics(n), scale=torch.ones(n), shift=torch.zeros(n))


def _counter(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that counts its calls, and may divide by their number."""

    def call(m: Any, x: Tensor) -> Tensor:
        m.calls.add_(1)
        return x / m.calls if o["kind"] else x

    return Do(call, calls=torch.tensor(1))


def _table(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that adds a table of numbers, one for each channel."""
    tail = _tail(xs, o)
    return Do(lambda m, x: x + m.table.view(tail), table=torch.linspace(-1, 1, _width(xs, o)))


def _made_anew(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that adds a tensor which `forward` accumulates or fills in parts, or that casts to a buffer's
    dtype."""

    def call(m: Any, x: Tensor) -> Any:
        match o["kind"]:
            case 0:
                total = torch.zeros((), dtype=torch.float64)
                total += x.detach().mean()
                return x + total
            case 1:
                table = torch.ones(3, 2, dtype=torch.float64)
                table[1:] = 0.5
                table[0, 1] = x.mean()
                table[2] = table[0] + 1
                return x * table.mean()
            case _:
                return x.to(m.one.dtype) * m.one

    return Do(call, one=torch.ones(()))


def _merged(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that merges the batch with the channels, or with time, in one axis."""
    n = xs[0].shape[1]
    rest = range(2, xs[0].dim())

    def call(m: Any, x: Tensor) -> Tensor:
        tail = [x.shape[k] for k in rest]
        wide = n if o["kind"] else x.shape[1]
        return F.relu(x.reshape(x.shape[0] * wide, *tail)).view(x.shape[0], wide, *tail)

    return Do(call)


def _by_sizes(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that scales by a number computed from a width and another size."""
    axis, n = (1 if o["image"] else -1), _width(xs, o)
    match o["kind"]:
        case 0:
            return Do(lambda m, x: x * (x.shape[axis] * x.shape[0]) ** -0.5)
        case 1:
            return Do(lambda m, x: x / x.numel())
        case 2:
            return Do(lambda m, x: x * (n * x.shape[0]) ** -0.5)
        case _:
            return Do(lambda m, x: x * (x.shape[0] / x.shape[axis]))


def _cut_by_sizes(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that weights by the sum of some units: as many as the batch has samples, or as half the length; or
    that splits there and concatenates again."""
    axis = 1 if o["image"] else xs[0].dim() - 1

    def part(x: Tensor, *bounds: Any) -> Any:
        return x[(slice(None),) * axis + (slice(*bounds),)]

    def call(m: Any, x: Tensor) -> Any:
        size = x.shape[0]
        match o["kind"]:
            case 0:
                return torch.cat([part(x, size), part(x, size, None)], axis)
            case 1:
                return x * part(x, size).sum(axis, keepdim=True)
            case 2:
                return x * part(x, -size, None).sum(axis, keepdim=True)
            case 3:
                return x * part(x, x.shape[2 if o["image"] else 1] // 2 + 1).sum(axis, keepdim=True)
            case _:
                return x * x.split(size, axis)[0].sum(axis, keepdim=True)

    return Do(call)


def _positions(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a step that adds a table of positions, cut to the length of the input."""
    axis = 2 if o["image"] else 1
    shape = [n if k in (axis, 1 if o["image"] else xs[0].dim() - 1) else 1 for k, n in enumerate(xs[0].shape)]
    return Do(lambda m, x: x + m.table.narrow(axis, 0, x.shape[axis]), table=nn.Parameter(torch.rand(shape)))


def _attention(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make an attention with dropout in training mode only."""
    n, heads = xs[0].shape[-1], o["heads"]

    def call(m: Any, x: Tensor) -> Any:
        q, k, v = (split_heads(layer(x), heads) for layer in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.2 if m.training else 0.0)
        return m.out(y.transpose(1, 2).flatten(2))

    return Do(call, q=nn.Linear(n, n), k=nn.Linear(n, n), v=nn.Linear(n, n), out=nn.Linear(n, n))


def _heads(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    n = xs[0].shape[-1]
    return {"heads": choose.pick([h for h in (1, 2, 3) if n % h == 0])}


CHANNELS_FIRST = ("image", "flat")
STATE: dict[str, Part] = {
    "dropout_by_mode": Part(takes=LAYOUTS, make=_dropout, share=2),
    "batch_norm_by_mode": Part(takes=CHANNELS_FIRST, make=_batch_norm, share=3),
    "scaled_by_mode": Part(takes=LAYOUTS, make=_scaled),
    "norm_kept_in_eval": Part(takes=CHANNELS_FIRST, make=_kept),
    "branch_by_mode": Part(takes=LAYOUTS, make=_branch, share=1),
    "norm_by_hand": Part(takes=LAYOUTS, make=_by_hand),
    "frozen_norm": Part(takes=LAYOUTS, make=_frozen),
    "counter": Part(takes=LAYOUTS, make=_counter, share=1),
    "table": Part(takes=LAYOUTS, make=_table, share=1),
    "made_anew": Part(takes=LAYOUTS, make=_made_anew, share=1),
    "batch_and_channels": Part(takes=LAYOUTS, make=_merged),
    "scaled_by_sizes": Part(takes=LAYOUTS, make=_by_sizes),
    "cut_by_sizes": Part(takes=LAYOUTS, make=_cut_by_sizes, share=1),
    "positions": Part(takes=("image", "tokens"), make=_positions, share=1),
    "attention_with_dropout": Part(takes=("tokens",), make=_attention, options=_heads, share=1),
}
"""All these kinds of steps, by name."""
KINDS = {
    "dropout_by_mode": 3,
    "batch_norm_by_mode": 3,
    "scaled_by_mode": 2,
    "norm_kept_in_eval": 1,
    "branch_by_mode": 1,
    "norm_by_hand": 2,
    "frozen_norm": 2,
    "counter": 2,
    "table": 1,
    "made_anew": 3,
    "batch_and_channels": 2,
    "scaled_by_sizes": 4,
    "cut_by_sizes": 5,
    "positions": 1,
}
"""Number of variants of each kind of step that needs to know the channel axis."""
