"""Counts what a run of the fuzzer has seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...errors import Kind
from .features import features
from .laws import Seen
from .sketch import Sketch

COUNTERS = ("ops", "features", "asked", "schemes", "refusals", "forced", "harmless")
LISTED = 20
"""Largest number of forced refusals without an effect that the report lists."""


@dataclass(slots=True)
class Tally:
    """Counts of models, pairs, growths, refusals, and of the steps in the models."""

    models: int = 0
    pairs: int = 0
    grown: int = 0
    breaches: int = 0
    further: int = 0
    """Number of pairs on which the laws that take longer were checked too."""
    ill: int = 0
    """Number of growths whose difference is above the bound, but explained by the network's own rounding."""
    worst: float = 0.0
    """The largest difference of the other growths."""
    ops: Counter[str] = field(default_factory=Counter)
    """Number of models that contain a kind of step."""
    features: Counter[str] = field(default_factory=Counter)
    """Number of models that have a feature other than a step."""
    asked: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    forced: Counter[str] = field(default_factory=Counter)
    """Forced refusals, by reason."""
    harmless: Counter[str] = field(default_factory=Counter)
    """Forced refusals that changed nothing, by reason, operator and scheme."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first example of each of these."""

    def model(self, sketch: Sketch) -> None:
        """Count a model with its steps and features."""
        self.models += 1
        self.ops.update({step.op for step in sketch.steps})
        self.features.update(features(sketch))

    def pair(self, seen: Seen, where: str = "") -> None:
        """Count a pair that broke no law; `where` says how to reproduce it."""
        self.pairs += 1
        self.asked[type(seen.growth).__name__] += 1
        self.further += seen.further
        if seen.refusal is not None:
            reason = named(seen.refusal)
            self.refusals[reason] += 1
            if seen.forced:
                self.forced[reason] += 1
            if seen.harmless:
                label = f"{reason}, {seen.harmless}"
                self.harmless[label] += 1
                self.examples.setdefault(label, f"{where}: {seen.growth}")
            return
        self.grown += 1
        self.schemes[seen.scheme] += 1
        self.ill += seen.rounding
        self.worst = max(self.worst, 0.0 if seen.rounding else seen.error)

    def add(self, other: Tally) -> None:
        """Add the counts of another run."""
        for name in ("models", "pairs", "grown", "breaches", "further", "ill"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst = max(self.worst, other.worst)
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.examples = {**other.examples, **self.examples}

    @property
    def share(self) -> float:
        """The share of pairs that are growths."""
        return self.grown / self.pairs if self.pairs else 0.0

    def progress(self) -> str:
        """Return the most important counts on one line."""
        return f"{self.pairs:,} pairs, {self.grown:,} growths, {self.breaches} broken laws"

    def text(self, seconds: float) -> str:
        """Return the report of a run as text."""
        pace = self.pairs / max(seconds, 1e-9)
        lines = [
            f"{self.pairs:,} pairs of {self.models:,} models in {seconds:.0f} s, {pace:.1f} a second",
            f"{self.breaches} broken laws",
            f"{self.share:.1%} of the pairs are growths, the others refusals",
            f"largest difference in float64 {self.worst:.1e}; larger in {self.ill} growths by own rounding",
            f"{self.further:,} pairs with further checks: growing twice or once, step by step, in the own dtype",
        ]
        for title, counts, of in (
            ("requests", self.asked, self.pairs),
            ("growths, by scheme", self.schemes, self.grown),
            ("refusals by reason, share of all pairs", self.refusals, self.pairs),
            ("steps, number of models", self.ops, self.models),
            ("features, number of models", self.features, self.models),
        ):
            lines += ["", title]
            lines += [f"  {name:<40} {n:>8,}  {n / max(of, 1):6.1%}" for name, n in counts.most_common() if n]
        return "\n".join((*lines, "", *self._harmless()))

    def _harmless(self) -> list[str]:
        """Format the refusals that may point to a missing rule; they break no law."""
        n = sum(self.harmless.values())
        lines = [f"refused, but without effect when forced: {n} of {sum(self.forced.values())} forced refusals"]
        for label, count in self.harmless.most_common(LISTED):
            lines += [f"  {count:>4}  {label}", f"        {self.examples[label]}"]
        return lines


def named(kind: Kind) -> str:
    """Return the name and the code of a refusal kind."""
    return f"{kind.name.lower().replace('_', ' ')} ({kind.value})"
