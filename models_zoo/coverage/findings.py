"""What became of a model: for each scheme the axes that it can grow, how well they keep the function, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import fxgrow

Grow = Literal["channels", "groups"]
Unit = tuple[str, int, int, int, int]
"""A row of units in a parameter: its name, the axis, how many, how far apart, and where the first one lies."""
Units = frozenset[Unit]
"""What grows."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Something to grow: an axis by the name of its first producer, and which factor of a product is meant."""

    name: str
    grow: Grow


@dataclass(frozen=True, slots=True)
class Growth:
    """An ask that a scheme can plan."""

    ask: Ask
    factor: float
    units: Units
    eval_only: bool
    """Whether a dropout over the growing units has to be off."""


@dataclass(slots=True)
class Cell:
    """What one scheme can do with one model."""

    growths: list[Growth] = field(default_factory=list)
    refused: dict[Ask, fxgrow.Refusal] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    """Growths that prove one by one, and not in the same plan."""
    eval_error: float = 0.0
    train_error: float | None = None

    @property
    def units(self) -> set[Units]:
        """Everything it can grow."""
        return {g.units for g in self.growths}

    @property
    def factors(self) -> dict[Units, float]:
        """By how little, of the factors that were tried."""
        return {g.units: g.factor for g in sorted(self.growths, key=lambda g: -g.factor)}


@dataclass(slots=True)
class Row:
    """What became of one model."""

    model: str
    cells: dict[str, Cell]
    seconds: float = 0.0

    @property
    def growable(self) -> set[Units]:
        """What any scheme can grow."""
        return set().union(*(cell.units for cell in self.cells.values()))

    def named(self, units: Units) -> str:
        """Something that grows, by name, and by how little with each scheme that can."""
        able = {s: g for s, cell in self.cells.items() for g in cell.growths if g.units == units}
        ask = next(iter(able.values())).ask
        return f"{ask.name} ({ask.grow}: {', '.join(f'{s} x{g.factor}' for s, g in able.items())})"

    def refused(self, scheme: str) -> Iterator[fxgrow.Refusal]:
        """Why a scheme cannot grow what another can."""
        cell = self.cells[scheme]
        able = {g.ask: g.units for other in self.cells.values() for g in other.growths}
        missing = {able[ask]: why for ask, why in cell.refused.items() if ask in able and able[ask] not in cell.units}
        yield from missing.values()

    def never(self) -> Iterator[fxgrow.Refusal]:
        """Why the rest cannot grow with any scheme."""
        able = {g.ask for cell in self.cells.values() for g in cell.growths}
        last = list(self.cells.values())[-1]
        yield from (why for ask, why in last.refused.items() if ask not in able)
