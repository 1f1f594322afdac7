"""Nodes of a grown graph in a report: what they do, and whether they agree with the graph before growth."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

Verdict = Literal["agrees", "differs", "new", "not compared"]
SIGN: dict[Verdict, str] = {"agrees": "=", "differs": "!", "new": "+", "not compared": "?"}
LEGEND: dict[Verdict, str] = {
    "agrees": "agrees",
    "differs": "differs",
    "new": "only in the grown model",
    "not compared": "not compared",
}
MOST_NEIGHBOURS = 6
"""The largest number of inputs, and of users, that are drawn."""


@dataclass(frozen=True, slots=True)
class Where:
    """One entry of a tensor: its index among the old channels, and its value before and after growth."""

    index: tuple[int, ...]
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node near the first difference."""

    node: str
    what: str
    """The module that it calls, or its function."""
    verdict: Verdict
    difference: float = 0.0
    """The largest difference of its old channels, relative to their largest entry."""

    def __str__(self) -> str:
        compared = self.verdict in ("agrees", "differs")
        return f"{SIGN[self.verdict]} {self.node}  {amount(self.difference) if compared else LEGEND[self.verdict]}"


def amount(difference: float) -> str:
    """Format a difference for the report."""
    return (
        "0" if difference == 0 else f"{difference:.1e}" if isfinite(difference) else "not finite, or of another shape"
    )
