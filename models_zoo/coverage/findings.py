"""The results for one model: for each scheme, the axes that it can grow, the errors, and the refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import fxgrow

Grow = Literal["channels", "groups"]
Unit = tuple[str, int, int, int, int]
"""A strided set of units in a parameter: its name, axis, number of units, stride and offset."""
Units = frozenset[Unit]
"""All sets of units that one growth changes; they identify the growth."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A requested growth: an axis, named by its first producer, and the factor of a product that is to grow."""

    name: str
    grow: Grow


@dataclass(frozen=True, slots=True)
class Growth:
    """A request that a scheme can plan."""

    ask: Ask
    factor: float
    units: Units
    eval_only: bool
    """Whether the growth holds in evaluation mode only, because of dropout over the growing units."""


@dataclass(slots=True)
class Cell:
    """The results of one scheme on one model."""

    growths: list[Growth] = field(default_factory=list)
    refused: dict[Ask, fxgrow.Refusal] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    """Growths that can be proved separately, but not in the same plan."""
    eval_error: float = 0.0
    train_error: float | None = None

    @property
    def units(self) -> set[Units]:
        """Everything that the scheme can grow."""
        return {g.units for g in self.growths}

    @property
    def factors(self) -> dict[Units, float]:
        """The smallest of the tried factors that works, for each set of units."""
        return {g.units: g.factor for g in sorted(self.growths, key=lambda g: -g.factor)}


@dataclass(slots=True)
class Row:
    """The results for one model."""

    model: str
    cells: dict[str, Cell]
    seconds: float = 0.0

    @property
    def growable(self) -> set[Units]:
        """Everything that at least one scheme can grow."""
        return set().union(*(cell.units for cell in self.cells.values()))

    def named(self, units: Units) -> str:
        """Describe a growth by name, with the smallest factor for each scheme that can plan it."""
        able = {s: g for s, cell in self.cells.items() for g in cell.growths if g.units == units}
        ask = next(iter(able.values())).ask
        return f"{ask.name} ({ask.grow}: {', '.join(f'{s} x{g.factor}' for s, g in able.items())})"

    def refused(self, scheme: str) -> Iterator[fxgrow.Refusal]:
        """Yield the refusals of a scheme for growths that another scheme can plan."""
        cell = self.cells[scheme]
        able = {g.ask: g.units for other in self.cells.values() for g in other.growths}
        missing = {able[ask]: why for ask, why in cell.refused.items() if ask in able and able[ask] not in cell.units}
        yield from missing.values()

    def never(self) -> Iterator[fxgrow.Refusal]:
        """Yield the refusals for growths that no scheme can plan."""
        able = {g.ask for cell in self.cells.values() for g in cell.growths}
        last = list(self.cells.values())[-1]
        yield from (why for ask, why in last.refused.items() if ask not in able)
