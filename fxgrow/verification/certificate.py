"""The certificate: the static proof, and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import Kind, Refusal
from .first_difference import FirstDifference

FLOAT64_BOUND = 1e-10
"""Relative error in float64 that decides. Rounding of sums over thousands of terms stays a hundred times below it,
a wrong half is a billion times above."""
ROUNDING_MULTIPLE = 2.0
"""The models' own rounding errors add up to at most this, by the triangle inequality, with a factor of two to spare."""
ULPS = 8.0
"""Floor of the tolerance in units in the last place: two models may round the last operation differently."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """One output on one probe in one mode: relative errors."""

    output: str
    probe: str
    mode: str
    float64: float
    own: float
    tolerance: float
    rounding_before: float
    rounding_after: float
    bound: float = FLOAT64_BOUND
    """Of the error in float64: `FLOAT64_BOUND`, or the tolerance where a growth had to round old entries."""
    entries: int = 1
    """How many finite ones were compared."""
    size: int = 1
    """How many there are."""

    @property
    def held(self) -> bool:
        """Whether both errors are within bounds."""
        return self.float64 <= self.bound and self.own <= self.tolerance

    @property
    def excess(self) -> float:
        """How many times its bound the error is."""
        return max(self.float64 / self.bound, self.own / self.tolerance if math.isfinite(self.tolerance) else 0.0)


def _all_held(errors: tuple[OutputError, ...]) -> bool:
    """Whether something was compared, and all of it is the same."""
    return any(e.entries for e in errors) and all(e.held for e in errors)


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """Whether the new entries of one parameter learn: the largest gradient, relative to the model's largest."""

    parameter: str
    gradient: float
    reached: bool
    why: str = ""
    frozen: bool = False
    """Whether the parameter does not learn (`requires_grad` is False), so that no gradient was asked for."""


@dataclass(frozen=True, slots=True)
class PairCheck:
    """How far apart the halves of one parameter are after one step of gradient descent, relative to the step."""

    parameter: str
    distance: float
    separated: bool


CALM = 0.1
"""A new block that one small step of gradient descent makes louder than this part of its input is not calm: blocks
that cancel behind their last norm move by 1e-4 to 1e-2, those that cancel in front of one by about 1."""


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """How much a new block adds, relative to what it adds to: before training, and after one small step."""

    block: str
    silent: float
    moved: float

    @property
    def calm(self) -> bool:
        """Whether the block starts slowly enough not to disturb what is there."""
        return self.moved <= CALM


@dataclass(frozen=True, slots=True)
class Certificate:
    """That two models compute the same function: proof and measurement."""

    dtype: str
    errors: tuple[OutputError, ...]
    proof: tuple[str, ...]
    eval_only: tuple[str, ...]
    gradients: tuple[GradientCheck, ...]
    pairs: tuple[PairCheck, ...]
    notes: tuple[str, ...] = ()
    blocks: tuple[BlockCheck, ...] = ()
    schemes: tuple[str, ...] = ()
    """By which schemes the model was grown, in order."""
    noise: float = 0.0
    """The largest noise that a growth was asked to add: then the function is preserved up to it only."""
    difference: FirstDifference | None = None
    """Where the models first differ, if they do and both are traced; looked for only then."""
    quiet: tuple[OutputError, ...] = ()
    """Where noise was asked for: the same comparisons after exactly that noise was taken out of the grown model."""
    failures: tuple[str, ...] = ()
    """Why the function is another one, whatever the numbers say: one of the models fails in a mode that is claimed, or
    returns other things there."""
    unfelt: tuple[str, ...] = ()
    """Grown tensors whose new entries can be perturbed without any effect on the outputs that were compared."""
    suspects: tuple[str, ...] | None = ()
    """Where something is not felt: tensors and numbers that are not what the plans say; None if nobody can tell."""
    modes: tuple[str, ...] = ("eval", "training")
    """The modes for which the certificate is."""
    compared: str = ""
    """With what the grown model was compared."""
    redrawn: tuple[str, ...] = ()
    """Where random numbers are drawn in evaluation mode, too, and for more units than before: the outputs have the same
    distribution. They were compared without what is drawn there."""

    def __bool__(self) -> bool:
        return self.ok

    @property
    def ok(self) -> bool:
        """Whether this is good enough: the function is preserved, but for noise that was asked for. All verbs, the
        gate, the command line and `bool` go by it."""
        return self.held or self.excused

    @property
    def held(self) -> bool:
        """Whether the function is preserved, in every mode that is claimed.

        Numbers that do not depend on the growth do not count: then every entry has to be what the plans say."""
        return self._stands and _all_held(self.errors)

    @property
    def excused(self) -> bool:
        """Whether noise was asked for, and is all that makes the difference: without it the function is preserved."""
        return bool(self.noise) and math.isfinite(self.float64) and self._stands and _all_held(self.quiet)

    @property
    def _stands(self) -> bool:
        """Whether nothing but the numbers is in doubt."""
        return (
            not self.failures and not self.suspects and (not self.unfelt or (bool(self.proof) and self.suspects == ()))
        )

    @property
    def float64(self) -> float:
        """The largest relative error in float64, which decides."""
        return max((e.float64 for e in self.errors), default=float("inf"))

    @property
    def worst(self) -> OutputError:
        """The output that comes closest to its tolerance, or is farthest beyond it."""
        return max(self.errors, key=lambda e: e.excess)

    @property
    def broken(self) -> tuple[OutputError, ...]:
        """The comparisons that decide and do not hold, the worst first: without the noise, where that can be told."""
        some = self.quiet if self.noise and self.quiet else self.errors
        return tuple(sorted((e for e in some if not e.held), key=lambda e: e.excess, reverse=True))

    def refusal(self) -> Refusal:
        """The failure in words."""
        if not self.broken:
            where = "; ".join(self.suspects or ()) or "the entries could not be compared with the plans"
            what = "new entries are not what the plans say, though no probe shows it"
            if self.unfelt or not self.suspects:
                what = "no output that was compared depends on the growth"
            what = self.failures[0] if self.failures else what
            return Refusal(
                Kind.CHECK_FAILED,
                f"the function is not shown to be the same: {what}",
                where="" if self.failures else where,
                hint="give example_inputs= on which the model is used",
            )
        e = self.broken[0]
        first = f"{self.difference.location}; " if self.difference is not None else ""
        return Refusal(
            Kind.CHECK_FAILED,
            f"the function changed: {e.output} differs by {e.float64:.1e} in float64 (bound {e.bound:.0e})",
            where=f"{first}probe {e.probe!r}, {e.mode} mode",
            hint="without the noise that was asked for it is another function, too; plan it anew"
            if self.noise
            else "this is a defect in fxgrow or in a rule that was registered; please report it with the model",
        )

    def __str__(self) -> str:
        lines = [self._verdict(), *([f"  {self.compared}"] if self.compared else [])]
        for mode in dict.fromkeys(e.mode for e in self.errors):
            lines += _numbers([e for e in self.errors if e.mode == mode], mode, self.dtype)
        if self.quiet:
            worst = max(e.float64 for e in self.quiet)
            lines.append(f"  without the noise the largest difference is {worst:.1e} in float64")
        lines += [f"  {failure}" for failure in self.failures]
        if self.schemes:
            lines.append(f"  scheme   {', '.join(self.schemes)}")
        if self.proof:
            lines.append(f"  proof    {len(self.proof)} steps; every sum over new units vanishes")
        else:
            lines.append("  proof    none: this model does not say that it was grown by fxgrow")
        if self.eval_only:
            lines.append(f"  holds in evaluation mode only, because of {', '.join(self.eval_only)}")
        lines += self._feeling()
        lines += _gradients(self.gradients)
        if self.pairs:
            apart = sum(p.separated for p in self.pairs)
            lines.append(f"  halves of {apart} of {len(self.pairs)} grown parameters differ after one step")
        for b in self.blocks:
            ending = "" if b.calm else "; it may disturb what is there: use a smaller learning rate at first"
            lines.append(f"  {b.block} adds {b.silent:.1e} of its input, {b.moved:.1e} after one small step{ending}")
        lines += [f"  {note}" for note in self.notes]
        if self.difference is not None:
            lines += ["", str(self.difference)]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.ok:
            return "NOT THE SAME FUNCTION" if self.broken or self.failures else "NOT SHOWN TO BE THE SAME FUNCTION"
        if self.noise:
            return f"the same function but for noise of {self.noise:g}, which was asked for: see the differences"
        if self.redrawn:
            return f"same distribution: {', '.join(self.redrawn)} draws random numbers in evaluation mode, too"
        return "same function"

    def _feeling(self) -> list[str]:
        """What the numbers are worth."""
        if not self.unfelt:
            lines = [] if not self.suspects else ["  something is not what the plans say, though no probe shows it:"]
            return lines + [f"    {suspect}" for suspect in self.suspects or ()]
        names = ", ".join(self.unfelt[:MOST_NAMES]) + (" …" if len(self.unfelt) > MOST_NAMES else "")
        lines = [f"  no output changes when the new entries of {names} are perturbed, so these numbers"]
        if not self.proof:
            return [f"  no output changes when {names} are perturbed, so these numbers prove nothing"]
        if self.suspects is None:
            return [*lines, "    prove nothing about them, and whether they are what the plans say could not be told"]
        if self.suspects:
            return [*lines, "    prove nothing about them, and something is not what the plans say:"] + [
                f"    {suspect}" for suspect in self.suspects
            ]
        return [*lines, "    prove nothing about them: the proof stands alone, and each entry is what the plans say"]


MOST_NAMES = 6
"""No more tensors than this are listed."""


def _numbers(some: list[OutputError], mode: str, dtype: str) -> list[str]:
    """The comparisons in one mode."""
    w = max(some, key=lambda e: e.own / e.tolerance if math.isfinite(e.tolerance) else 0.0)
    probes, outputs = {e.probe for e in some if e.entries}, {e.output for e in some if e.entries}
    return [
        f"  {mode} mode, {len(probes)} probes, {len(outputs)} output(s)",
        f"    float64  largest difference {max(e.float64 for e in some):.1e}  (bound {max(e.bound for e in some):.0e})",
        f"    {dtype:<8} largest difference {max(e.own for e in some):.1e}",
        f"             closest to its tolerance {w.own:.1e} of {w.tolerance:.1e} = {ROUNDING_MULTIPLE:g} x the "
        f"rounding of both ({w.rounding_before:.1e}, {w.rounding_after:.1e}) + {ULPS:g} ulp",
    ]


def _gradients(some: tuple[GradientCheck, ...]) -> list[str]:
    """Which grown parameters learn."""
    asked = [g for g in some if not g.frozen]
    frozen = [g.parameter for g in some if g.frozen]
    lines = []
    if asked:
        reached = sum(g.reached for g in asked)
        lines.append(f"  gradient reaches the new entries of {reached} of {len(asked)} grown parameters")
        lines += [f"    not {g.parameter}: {g.why}" for g in asked if not g.reached]
    if frozen:
        names = ", ".join(frozen[:MOST_NAMES]) + (" …" if len(frozen) > MOST_NAMES else "")
        lines.append(f"  frozen   {len(frozen)} grown parameters do not learn (requires_grad is False): {names}")
    return lines
