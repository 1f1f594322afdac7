"""What a run of the fuzzer has seen, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .laws import Seen
from .sketch import Sketch


@dataclass(slots=True)
class Tally:
    """Counts of models, pairs, growths, refusals, and of the steps in the models."""

    models: int = 0
    pairs: int = 0
    grown: int = 0
    breaches: int = 0
    ill: int = 0
    """Growths whose difference is above the bound, explained by the network's own rounding."""
    worst: float = 0.0
    """The largest difference of the others."""
    ops: Counter[str] = field(default_factory=Counter)
    """In how many models a kind of step, or a state, occurs."""
    asked: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    def model(self, sketch: Sketch) -> None:
        """Count a model."""
        self.models += 1
        self.ops.update({step.op for step in sketch.steps})
        self.ops.update({f"input: {one.layout}" + _rank(one.layout, one.shape) for one in sketch.inputs})
        states = {"training": sketch.training, "channels_last": sketch.channels_last}
        states |= {"several inputs": len(sketch.inputs) > 1, "several outputs": len(sketch.outputs) > 1}
        self.ops.update(f"state: {name}" for name, is_so in states.items() if is_so)

    def pair(self, seen: Seen) -> None:
        """Count a pair that broke no law."""
        self.pairs += 1
        self.asked[type(seen.growth).__name__] += 1
        if seen.refusal is not None:
            self.refusals[f"{seen.refusal.value} {seen.refusal.name}"] += 1
            return
        self.grown += 1
        self.schemes[seen.scheme] += 1
        self.ill += seen.rounding
        self.worst = max(self.worst, 0.0 if seen.rounding else seen.error)

    def add(self, other: Tally) -> None:
        """Count what another run has counted."""
        for name in ("models", "pairs", "grown", "breaches", "ill"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst = max(self.worst, other.worst)
        for name in ("ops", "asked", "schemes", "refusals"):
            getattr(self, name).update(getattr(other, name))

    @property
    def share(self) -> float:
        """Of pairs that are growths."""
        return self.grown / self.pairs if self.pairs else 0.0

    def text(self, seconds: float) -> str:
        """A report."""
        pace = self.pairs / max(seconds, 1e-9)
        lines = [
            f"{self.pairs:,} pairs of {self.models:,} models in {seconds:.0f} s, {pace:.1f} a second",
            f"{self.breaches} broken laws",
            f"{self.share:.1%} of the pairs are growths, the others refusals",
            f"largest difference in float64 {self.worst:.1e}; in {self.ill} growths the network's own rounding is more",
            "",
        ]
        for title, counts, of in (
            ("asked", self.asked, self.pairs),
            ("schemes of growths", self.schemes, self.grown),
            ("reasons of refusals, of all pairs", self.refusals, self.pairs),
            ("in so many models", self.ops, self.models),
        ):
            lines.append(title)
            lines += [f"  {name:<28} {n:>7,}  {n / max(of, 1):6.1%}" for name, n in counts.most_common()]
        return "\n".join(lines)


def _rank(layout: str, shape: tuple[int, ...]) -> str:
    return f" {len(shape) - 2}-D" if layout == "image" else ""
