"""On what scale an entry of an output is compared: that of its own slices, as far as their rounding lets it be known.

Five per cent of a column of thousandths must be seen beside a column of billions. But where large numbers cancel, what
remains is their rounding, and no scale of its own: so every slice is at least as large as what its rounding in lower
precision says that it was computed from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .compare import mask_free

SHARE = 1e-3
"""Rounding may raise a slice's scale up to the largest entry on the same probe, or to this part of that on all probes:
results that rounding turns over (the index of a maximum, say) would have no scale at all otherwise."""
LAST_PLACE = 1e-6
"""No slice is compared on a smaller scale than this part of its largest entry on other probes: the bound in float64,
of that part, is the last place of that entry."""


@dataclass(slots=True)
class Yardstick:
    """The scales of one output in one mode, which learns from one probe after the other."""

    largest: float = 0.0
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By axis and length: the largest entry of each slice so far."""

    def learn(self, values: Tensor) -> None:
        """Take note of an output."""
        sizes, top = _ordinary(values)
        self.largest = max(self.largest, top)
        for axis, length in enumerate(values.shape):
            if values.numel():
                now = _slices(sizes, axis)
                before = self.known.get((axis, length))
                self.known[axis, length] = now if before is None else torch.maximum(now, before)

    def scales(self, values: Tensor, rounding: Tensor | None, epsilon: float) -> Tensor:
        """The scale of each entry.

        Args:
            values: in float64, of the model as it was; noted by `learn` before.
            rounding: by how much each entry moves in lower precision; None if that is not known.
            epsilon: of the lower precision.

        Returns:
            A tensor of the shape of `values`; positive unless the output is zero on all probes.
        """
        if not values.numel():
            return torch.zeros_like(values)
        sizes, top = _ordinary(values)
        most = max(top, SHARE * self.largest)
        result = torch.full_like(sizes, most)
        for axis, length in enumerate(values.shape):
            own = torch.maximum(_slices(sizes, axis), LAST_PLACE * self.known[axis, length])
            if rounding is not None:
                moved = _slices(rounding.nan_to_num(nan=torch.inf, posinf=torch.inf), axis) / epsilon
                own = torch.maximum(own, moved.clamp(max=most))
            shape = [length if k == axis else 1 for k in range(values.dim())]
            result = torch.minimum(result, own.reshape(shape))
        result = torch.where(result > 0, result, LAST_PLACE * most)
        return torch.maximum(result, values.abs().nan_to_num(nan=0.0, posinf=0.0))


def _ordinary(values: Tensor) -> tuple[Tensor, float]:
    """Sizes of entries, zero where they are masks or not finite; and the largest of them."""
    sizes = values.abs().nan_to_num(nan=0.0, posinf=0.0)
    top = mask_free(sizes) if sizes.numel() else 0.0
    return torch.where(sizes <= top, sizes, 0.0), top


def _slices(sizes: Tensor, axis: int) -> Tensor:
    """The largest entry of each slice."""
    others = [k for k in range(sizes.dim()) if k != axis]
    return sizes.amax(others) if others else sizes


def apart(a: Tensor, b: Tensor, scales: Tensor, ignored: Tensor) -> float:
    """The largest difference on the scale of each entry; infinite where shapes or non-finite entries differ.

    Args:
        a: the output as it is to be.
        b: the one that is compared.
        scales: of each entry.
        ignored: entries that are not compared.
    """
    return float(gaps(a, b, scales, ignored).max()) if a.shape == b.shape and a.numel() else _shapes(a, b)


def gaps(a: Tensor, b: Tensor, scales: Tensor, ignored: Tensor) -> Tensor:
    """The difference of each entry on its scale; infinite where one is not finite and the other something else."""
    same = (a == b) | (a.isnan() & b.isnan()) | ignored
    difference = (a - b).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.where(same, 0.0, torch.where(scales > 0, difference / scales, difference))


def _shapes(a: Tensor, b: Tensor) -> float:
    return 0.0 if a.shape == b.shape else float("inf")
