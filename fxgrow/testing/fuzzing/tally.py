"""What a run of the fuzzer has seen, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...errors import Kind
from .features import features
from .laws import Seen
from .sketch import Sketch

COUNTERS = ("ops", "features", "asked", "schemes", "refusals", "forced", "harmless")
LISTED = 20
"""Refusals that were forced without harm, of which the report tells."""


@dataclass(slots=True)
class Tally:
    """Counts of models, pairs, growths, refusals, and of the steps in the models."""

    models: int = 0
    pairs: int = 0
    grown: int = 0
    breaches: int = 0
    further: int = 0
    """Pairs on which the laws that take longer were watched, too."""
    ill: int = 0
    """Growths whose difference is above the bound, explained by the network's own rounding."""
    worst: float = 0.0
    """The largest difference of the others."""
    ops: Counter[str] = field(default_factory=Counter)
    """In how many models a kind of step occurs."""
    features: Counter[str] = field(default_factory=Counter)
    """The same of what is not a step."""
    asked: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    forced: Counter[str] = field(default_factory=Counter)
    """Refusals that were forced, by reason."""
    harmless: Counter[str] = field(default_factory=Counter)
    """Those of them that did no harm: reason, operator, scheme."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each of these the first one seen."""

    def model(self, sketch: Sketch) -> None:
        """Count a model."""
        self.models += 1
        self.ops.update({step.op for step in sketch.steps})
        self.features.update(features(sketch))

    def pair(self, seen: Seen, where: str = "") -> None:
        """Count a pair that broke no law; `where` tells how to find it again."""
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
        """Count what another run has counted."""
        for name in ("models", "pairs", "grown", "breaches", "further", "ill"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst = max(self.worst, other.worst)
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.examples = {**other.examples, **self.examples}

    @property
    def share(self) -> float:
        """Of pairs that are growths."""
        return self.grown / self.pairs if self.pairs else 0.0

    def progress(self) -> str:
        """The counts that matter, on one line."""
        return f"{self.pairs:,} pairs, {self.grown:,} growths, {self.breaches} broken laws"

    def text(self, seconds: float) -> str:
        """A report."""
        pace = self.pairs / max(seconds, 1e-9)
        lines = [
            f"{self.pairs:,} pairs of {self.models:,} models in {seconds:.0f} s, {pace:.1f} a second",
            f"{self.breaches} broken laws",
            f"{self.share:.1%} of the pairs are growths, the others refusals",
            f"largest difference in float64 {self.worst:.1e}; in {self.ill} growths the network's own rounding is more",
            f"{self.further:,} pairs watched further: twice against once, step by step, in the model's own dtype",
        ]
        for title, counts, of in (
            ("what was asked", self.asked, self.pairs),
            ("growths, by scheme", self.schemes, self.grown),
            ("refusals, by reason, of all pairs", self.refusals, self.pairs),
            ("steps, in so many models", self.ops, self.models),
            ("features, in so many models", self.features, self.models),
        ):
            lines += ["", title]
            lines += [f"  {name:<40} {n:>8,}  {n / max(of, 1):6.1%}" for name, n in counts.most_common() if n]
        return "\n".join((*lines, "", *self._harmless()))

    def _harmless(self) -> list[str]:
        """Refusals that may point to a missing rule: no law says that there is none."""
        n = sum(self.harmless.values())
        lines = [f"refused, yet forced without harm: {n} of {sum(self.forced.values())} refusals that were forced"]
        for label, count in self.harmless.most_common(LISTED):
            lines += [f"  {count:>4}  {label}", f"        {self.examples[label]}"]
        return lines


def named(kind: Kind) -> str:
    """A reason in words, with its code."""
    return f"{kind.name.lower().replace('_', ' ')} ({kind.value})"
