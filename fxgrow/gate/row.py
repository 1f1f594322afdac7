"""What the gate found: one row for each model and growth, or each model and its baseline."""

from __future__ import annotations

from dataclasses import dataclass

HELD, BROKEN, REFUSED, ERROR = "held", "broken", "refused", "error"
BASELINE = "baseline"
"""What stands in the place of a growth where a model is compared with recorded outputs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from what it was: on the probe, and in the mode, in which it is closest to its limit."""

    output: str
    seed: int
    probe: str
    mode: str
    dtype: str
    error: float
    limit: float
    """Relative errors up to it are held to be rounding."""

    @property
    def held(self) -> bool:
        """Whether the error is within its limit."""
        return self.error <= self.limit

    def __str__(self) -> str:
        place = f"seed {self.seed}, probe {self.probe!r}, {self.mode} mode"
        return f"{self.output} differs by {self.error:.1e} in {self.dtype} (limit {self.limit:.1e}; {place})"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison of the gate."""

    model: str
    growth: str
    status: str
    seconds: float
    differences: tuple[Difference, ...] = ()
    """For each output and dtype the one that is closest to its limit, or farthest beyond it."""
    message: str = ""
    """What is wrong, and where; empty if the row holds."""

    @property
    def name(self) -> str:
        """Model and growth."""
        return f"{self.model} · {self.growth}"

    @property
    def summary(self) -> str:
        """The largest errors, or what is wrong, in one line."""
        if self.message:
            return self.message.splitlines()[0]
        worst = {d.dtype: d for d in sorted(self.differences, key=lambda d: d.error / d.limit)}
        return ", ".join(f"{dtype} {d.error:.1e} of {d.limit:.1e}" for dtype, d in sorted(worst.items(), reverse=True))


def closest(differences: list[Difference]) -> tuple[Difference, ...]:
    """For each output and dtype the difference that is closest to its limit."""
    found: dict[tuple[str, str], Difference] = {}
    for d in differences:
        key = d.output, d.dtype
        if key not in found or d.error / d.limit > found[key].error / found[key].limit:
            found[key] = d
    return tuple(found.values())
