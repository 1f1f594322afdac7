"""Result rows of the gate: one for each model and growth, or for each model and its baseline."""

from __future__ import annotations

from dataclasses import dataclass

HELD, BROKEN, REFUSED, ERROR = "held", "broken", "refused", "error"
BASELINE = "baseline"
"""The name in place of a growth in rows that compare a model with recorded outputs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of one output, on the probe and in the mode where it is largest relative to its limit."""

    output: str
    seed: int
    probe: str
    mode: str
    dtype: str
    error: float
    limit: float
    """The largest relative error that counts as rounding."""

    @property
    def held(self) -> bool:
        """Whether the error is within its limit."""
        return self.error <= self.limit

    def __str__(self) -> str:
        place = f"seed {self.seed}, probe {self.probe!r}, {self.mode} mode"
        return f"{self.output} differs by {self.error:.1e} in {self.dtype} (limit {self.limit:.1e}; {place})"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one comparison of the gate."""

    model: str
    growth: str
    status: str
    seconds: float
    differences: tuple[Difference, ...] = ()
    """For each output and dtype, the difference that is largest relative to its limit."""
    message: str = ""
    """What is wrong, and where; "" if the row holds."""

    @property
    def name(self) -> str:
        """Names of the model and the growth."""
        return f"{self.model} · {self.growth}"

    @property
    def summary(self) -> str:
        """The largest errors, or what is wrong, in one line."""
        if self.message:
            return self.message.splitlines()[0]
        worst = {d.dtype: d for d in sorted(self.differences, key=lambda d: d.error / d.limit)}
        return ", ".join(f"{dtype} {d.error:.1e} of {d.limit:.1e}" for dtype, d in sorted(worst.items(), reverse=True))


def closest(differences: list[Difference]) -> tuple[Difference, ...]:
    """Return, for each output and dtype, the difference that is largest relative to its limit."""
    found: dict[tuple[str, str], Difference] = {}
    for d in differences:
        key = d.output, d.dtype
        if key not in found or d.error / d.limit > found[key].error / found[key].limit:
            found[key] = d
    return tuple(found.values())
