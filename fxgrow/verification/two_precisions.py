"""Compares one output of two models, in the models' own dtype and in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from .certificate import OutputError
from .scales import apart


@dataclass(frozen=True, slots=True)
class Four:
    """One output of two models: in their own dtype (None if missing there) and in float64 (`a`, `b`)."""

    old: Tensor | None
    new: Tensor | None
    a: Tensor
    b: Tensor

    @property
    def ignored(self) -> Tensor:
        """Entries that are NaN in the first model; they are not compared."""
        return self.a.isnan()

    def rounding(self) -> Tensor:
        """Return how much each entry moves between the precisions, the larger of both models; infinite if unknown."""
        sides = ((self.old, self.a), (self.new, self.b))
        if any(own is None or own.shape != self.a.shape or precise.shape != self.a.shape for own, precise in sides):
            return torch.full_like(self.a, torch.inf)
        some = torch.stack([(own - precise).abs() for own, precise in sides if own is not None]).amax(0)
        return torch.where(self.ignored, 0.0, some.nan_to_num(nan=torch.inf, posinf=torch.inf))


def own_error(four: Four, scales: Tensor) -> float:
    """Return the difference of the two outputs in their own dtype, on the scale of each entry."""
    if four.old is None or four.new is None:
        return 0.0 if four.old is four.new else inf
    if four.old.shape != scales.shape:  # the number of entries depends on the precision
        return 0.0 if four.old.shape == four.new.shape else inf
    return apart(four.old, four.new, scales, four.ignored | four.old.isnan())


def weaker(error: OutputError, four: Four, dtype: torch.dtype) -> Iterator[str]:
    """Yield notes on what the comparison of an output does not cover."""
    name = f"{error.output}, {error.mode} mode"
    if error.size and not error.entries:
        yield f"{name}: no entry is finite in the model before growth, so none is compared"
    elif bool(four.ignored.any()):
        yield f"{name}: entries that are NaN in the model before growth are not compared"
    if not isfinite(error.tolerance):
        kind = str(dtype).removeprefix("torch.")
        yield f"{name}: {kind} results have another shape than float64, or are not finite: only float64 is compared"
