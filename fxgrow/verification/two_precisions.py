"""One output of two models in two precisions."""

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
    """One output: of both models in their own dtype, if they have it there, and in float64."""

    old: Tensor | None
    new: Tensor | None
    a: Tensor
    b: Tensor

    @property
    def ignored(self) -> Tensor:
        """Entries that are NaN in the first model, so that they are not compared, whatever the other one has."""
        return self.a.isnan()

    def rounding(self) -> Tensor:
        """By how much each entry moves between the precisions, in the one model or the other; infinite if unknown."""
        sides = ((self.old, self.a), (self.new, self.b))
        if any(own is None or own.shape != self.a.shape or precise.shape != self.a.shape for own, precise in sides):
            return torch.full_like(self.a, torch.inf)
        some = torch.stack([(own - precise).abs() for own, precise in sides if own is not None]).amax(0)
        return torch.where(self.ignored, 0.0, some.nan_to_num(nan=torch.inf, posinf=torch.inf))


def own_error(four: Four, scales: Tensor) -> float:
    """How far both are apart in their own dtype."""
    if four.old is None or four.new is None:
        return 0.0 if four.old is four.new else inf
    if four.old.shape != scales.shape:  # as many as the precision lets there be
        return 0.0 if four.old.shape == four.new.shape else inf
    return apart(four.old, four.new, scales, four.ignored | four.old.isnan())


def weaker(error: OutputError, four: Four, dtype: torch.dtype) -> Iterator[str]:
    """What an output does not say."""
    name = f"{error.output}, {error.mode} mode"
    if error.size and not error.entries:
        yield f"{name}: nothing is finite in the model before, so nothing is compared"
    elif bool(four.ignored.any()):
        yield f"{name}: entries that are NaN in the model before are not compared"
    if not isfinite(error.tolerance):
        kind = str(dtype).removeprefix("torch.")
        yield f"{name}: {kind} and float64 give results of other shapes, or not finite: only float64 is compared"
