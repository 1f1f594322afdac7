"""Computes the scale on which each entry of an output is compared: the largest entry of its own slices.

An error of 5% in a column of values near 1e-3 must be visible beside a column of values near 1e9. Where large numbers
cancel, however, the rest is rounding and defines no scale of its own. So the scale of a slice is at least the size of
the numbers that it was computed from, as estimated by its rounding in lower precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .compare import mask_free

SHARE = 1e-3
"""Rounding may raise a slice's scale up to the largest entry on the same probe, or up to this part of the largest entry
on all probes. Without the limit, results that rounding can flip (the index of a maximum, for example) would have no
scale."""
LAST_PLACE = 1e-6
"""A slice's scale is at least this part of its largest entry on other probes: the float64 bound, times this part, is
the last place of that entry."""


@dataclass(slots=True)
class Yardstick:
    """The scales of one output in one mode, updated probe by probe."""

    largest: float = 0.0
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """The largest entry of each slice so far, by axis and length."""

    def learn(self, values: Tensor) -> None:
        """Update the scales with an output."""
        sizes, top = _ordinary(values)
        self.largest = max(self.largest, top)
        for axis, length in enumerate(values.shape):
            if values.numel():
                now = _slices(sizes, axis)
                before = self.known.get((axis, length))
                self.known[axis, length] = now if before is None else torch.maximum(now, before)

    def scales(self, values: Tensor, rounding: Tensor | None, epsilon: float) -> Tensor:
        """Return the scale of each entry.

        Args:
            values: the output of the model before growth, in float64; `learn` has seen it.
            rounding: how much each entry moves in lower precision; None if unknown.
            epsilon: the epsilon of the lower precision.

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
    """Return the sizes of the entries, with zero for masks and non-finite entries, and the largest of them."""
    sizes = values.abs().nan_to_num(nan=0.0, posinf=0.0)
    top = mask_free(sizes) if sizes.numel() else 0.0
    return torch.where(sizes <= top, sizes, 0.0), top


def _slices(sizes: Tensor, axis: int) -> Tensor:
    """Return the largest entry of each slice."""
    others = [k for k in range(sizes.dim()) if k != axis]
    return sizes.amax(others) if others else sizes


def apart(a: Tensor, b: Tensor, scales: Tensor, ignored: Tensor) -> float:
    """Return the largest difference on the scale of each entry; infinite where shapes or non-finite entries differ.

    Args:
        a: the expected output.
        b: the output to compare.
        scales: the scale of each entry.
        ignored: True for entries that are not compared.
    """
    return float(gaps(a, b, scales, ignored).max()) if a.shape == b.shape and a.numel() else _shapes(a, b)


def gaps(a: Tensor, b: Tensor, scales: Tensor, ignored: Tensor) -> Tensor:
    """Return the difference of each entry on its scale; infinite where only one is finite, or both are different
    infinities."""
    same = (a == b) | (a.isnan() & b.isnan()) | ignored
    difference = (a - b).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.where(same, 0.0, torch.where(scales > 0, difference / scales, difference))


def _shapes(a: Tensor, b: Tensor) -> float:
    return 0.0 if a.shape == b.shape else float("inf")
