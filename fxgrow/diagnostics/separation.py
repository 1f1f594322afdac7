"""Measures how far the halves of each pair are apart, once or over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import median

import torch
from torch import fx

from .pairs import Pairs, history, pairs_of
from .text import number, table


@dataclass(frozen=True, slots=True)
class Separation:
    """The distances between the halves of some pairs at one step; the sign of the right halves of opposite pairs is
    flipped.

    So every pair starts at distance 0 and cosine 1, in producers and consumers alike.
    """

    pairs: Pairs
    step: int
    distances: tuple[float, ...]
    """For each pair, the norm of the difference of its halves."""
    lengths: tuple[float, ...]
    """For each pair, the mean norm of its halves."""
    cosines: tuple[float, ...]
    """For each pair, the cosine of the angle between its halves; NaN if a half is one number or zero."""

    @property
    def relative(self) -> tuple[float, ...]:
        """Distances divided by the mean norm of the halves; 0 if both halves are zero."""
        return tuple(d / n if n > 0 else 0.0 for d, n in zip(self.distances, self.lengths, strict=True))

    @property
    def separated(self) -> int:
        """Number of pairs that differ in at least one bit."""
        return sum(d > 0 for d in self.distances)

    def __str__(self) -> str:
        return _table([self])


@dataclass(frozen=True, slots=True)
class Course:
    """The distances between the halves of a grown model's pairs over the steps of training."""

    steps: tuple[int, ...]
    separations: tuple[Separation, ...]
    """All measurements in the order of the steps; at each step one for each growth, parameter and axis."""

    def of(self, parameter: str) -> tuple[Separation, ...]:
        """Return the measurements of one parameter."""
        return tuple(s for s in self.separations if s.pairs.parameter == parameter)

    @property
    def last(self) -> tuple[Separation, ...]:
        """The measurements at the last recorded step."""
        return tuple(s for s in self.separations if self.steps and s.step == self.steps[-1])

    def __str__(self) -> str:
        if not self.steps:
            return "nothing recorded yet"
        return f"halves at step {self.steps[-1]}, the last of {len(self.steps)} recorded\n{_table(self.last)}"


def separation(model: fx.GraphModule, *, step: int = 0) -> tuple[Separation, ...]:
    """Measure how far the halves of each pair of a grown model are currently apart.

    Raises:
        UsageError: the model has no record of a growth.
    """
    return tuple(_measure(model, pairs, step) for pairs in pairs_of(model))


class Recorder:
    """Records the distances between halves while a grown model is trained; call `record` after each optimizer step.

    The model may grow further in between. Only numbers are kept, three for each pair and step.

    Raises:
        UsageError: the model has no record of a growth.
    """

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self._plans = history(model)
        self._pairs = pairs_of(model)
        self._steps: list[int] = []
        self._separations: list[Separation] = []

    def record(self, step: int | None = None) -> tuple[Separation, ...]:
        """Measure now and return the measurements; without `step`, steps are counted from 0."""
        if history(self.model) != self._plans:
            self._plans, self._pairs = history(self.model), pairs_of(self.model)
        step = (self._steps[-1] + 1 if self._steps else 0) if step is None else step
        found = tuple(_measure(self.model, pairs, step) for pairs in self._pairs)
        self._steps.append(step)
        self._separations += found
        return found

    @property
    def course(self) -> Course:
        """Everything recorded so far."""
        return Course(tuple(self._steps), tuple(self._separations))


def _measure(model: fx.GraphModule, pairs: Pairs, step: int) -> Separation:
    left, right = (half.double() for half in pairs.halves(model.get_parameter(pairs.parameter)))
    a, b = left.norm(dim=1), right.norm(dim=1)
    cosines = (left * right).sum(1) / (a * b) if left.shape[1] > 1 else torch.full_like(a, nan)
    distances = (left - right).norm(dim=1)
    return Separation(pairs, step, _numbers(distances), _numbers((a + b) / 2), _numbers(cosines.clamp(-1, 1)))


def _numbers(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())


def _table(some: Sequence[Separation]) -> str:
    head = ("parameter", "role", "pairs", "apart", "distance/length: least", "median", "most", "median cosine")
    rows = []
    for s in some:
        known = [c for c in s.cosines if not isnan(c)]
        rows.append(
            (
                s.pairs.parameter,
                s.pairs.role,
                str(len(s.distances)),
                str(s.separated),
                *(number(f(s.relative)) for f in (min, median, max)),
                number(median(known) if known else nan),
            )
        )
    return table(head, rows)
