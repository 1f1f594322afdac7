"""Certificates: the result of `verify`, with the static proof and the measured differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import Kind, Refusal
from .first_difference import FirstDifference

FLOAT64_BOUND = 1e-10
"""Bound of the relative error in float64. Rounding in sums of thousands of terms is a hundred times smaller, the error
of a wrong half a billion times larger."""
ROUNDING_MULTIPLE = 2.0
"""Factor of both models' rounding errors in the tolerance: by the triangle inequality 1 is enough, so this leaves a
factor of two to spare."""
ULPS = 8.0
"""Floor of the tolerance, in units in the last place: two models may round the last operation differently."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """The relative errors of one output on one probe in one mode."""

    output: str
    probe: str
    mode: str
    float64: float
    own: float
    tolerance: float
    rounding_before: float
    rounding_after: float
    bound: float = FLOAT64_BOUND
    """Bound of the error in float64: `FLOAT64_BOUND`, or the tolerance where a growth had to round old entries."""
    entries: int = 1
    """Number of finite entries that were compared."""
    size: int = 1
    """Number of entries of the output."""

    @property
    def held(self) -> bool:
        """Whether both errors are within their bounds."""
        return self.float64 <= self.bound and self.own <= self.tolerance

    @property
    def excess(self) -> float:
        """The larger of the two errors, each divided by its bound."""
        return max(self.float64 / self.bound, self.own / self.tolerance if math.isfinite(self.tolerance) else 0.0)


def _all_held(errors: tuple[OutputError, ...]) -> bool:
    """Whether at least one entry was compared, and all errors are within their bounds."""
    return any(e.entries for e in errors) and all(e.held for e in errors)


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """Whether the new entries of one parameter get a gradient; `gradient` is relative to the model's largest."""

    parameter: str
    gradient: float
    reached: bool
    why: str = ""
    frozen: bool = False
    """Whether `requires_grad` is False, so that no gradient was computed."""


@dataclass(frozen=True, slots=True)
class PairCheck:
    """How far the two halves of one parameter are apart after one step of gradient descent, relative to the step."""

    parameter: str
    distance: float
    separated: bool


CALM = 0.1
"""Largest part of its input that a new block may add after one small step. Blocks that cancel after their last norm add
1e-4 to 1e-2, blocks that cancel in front of a norm about 1."""


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """How much a new block adds, relative to its input: before training (`silent`) and after one small step
    (`moved`)."""

    block: str
    silent: float
    moved: float

    @property
    def calm(self) -> bool:
        """Whether the block adds little enough after one step to leave the model's function nearly unchanged."""
        return self.moved <= CALM


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result of comparing two models: whether they compute the same function, by proof and by measurement.

    A certificate is true if the models agree (see `ok`), and prints as a short report.
    """

    dtype: str
    errors: tuple[OutputError, ...]
    proof: tuple[str, ...]
    eval_only: tuple[str, ...]
    gradients: tuple[GradientCheck, ...]
    pairs: tuple[PairCheck, ...]
    notes: tuple[str, ...] = ()
    blocks: tuple[BlockCheck, ...] = ()
    schemes: tuple[str, ...] = ()
    """The schemes by which the model was grown, in order."""
    noise: float = 0.0
    """The largest noise that was requested in a growth; the function is preserved only up to this noise."""
    difference: FirstDifference | None = None
    """The first node at which the models differ; computed only if they differ and both are traced."""
    quiet: tuple[OutputError, ...] = ()
    """If noise was requested: the same comparisons after exactly this noise was subtracted from the grown model."""
    failures: tuple[str, ...] = ()
    """Reasons why the functions differ whatever the numbers say: one of the models fails in a claimed mode, or the
    models return different things there."""
    unfelt: tuple[str, ...] = ()
    """Grown tensors whose new entries can be perturbed without an effect on the compared outputs."""
    suspects: tuple[str, ...] | None = ()
    """If `unfelt` is not empty: tensors and numbers that differ from the plans; None if this could not be
    determined."""
    modes: tuple[str, ...] = ("eval", "training")
    """The modes that the certificate covers."""
    compared: str = ""
    """What the grown model was compared with."""
    redrawn: tuple[str, ...] = ()
    """Operators that draw random numbers in evaluation mode too, for more units than before: the outputs have the same
    distribution. The comparison left these draws out."""

    def __bool__(self) -> bool:
        return self.ok

    @property
    def ok(self) -> bool:
        """Whether the function is preserved, up to noise that was requested. All API functions, the gate, the command
        line and `bool` use it."""
        return self.held or self.excused

    @property
    def held(self) -> bool:
        """Whether the function is preserved in every claimed mode.

        Numbers that do not depend on the growth are not enough: there, every entry must also match the plans."""
        return self._stands and _all_held(self.errors)

    @property
    def excused(self) -> bool:
        """Whether requested noise is the only reason for the difference: without it, the function is preserved."""
        return bool(self.noise) and math.isfinite(self.float64) and self._stands and _all_held(self.quiet)

    @property
    def within_noise(self) -> bool:
        """Another name of `excused`: the only difference is noise that was requested."""
        return self.excused

    @property
    def _stands(self) -> bool:
        """Whether everything except the measured errors supports the certificate."""
        return (
            not self.failures and not self.suspects and (not self.unfelt or (bool(self.proof) and self.suspects == ()))
        )

    @property
    def float64(self) -> float:
        """The largest relative error in float64; it decides."""
        return max((e.float64 for e in self.errors), default=float("inf"))

    @property
    def worst(self) -> OutputError:
        """The output whose error is largest relative to its bound."""
        return max(self.errors, key=lambda e: e.excess)

    @property
    def broken(self) -> tuple[OutputError, ...]:
        """The comparisons outside their bounds, the worst first; without the requested noise where that was
        measured."""
        some = self.quiet if self.noise and self.quiet else self.errors
        return tuple(sorted((e for e in some if not e.held), key=lambda e: e.excess, reverse=True))

    def refusal(self) -> Refusal:
        """Describe the failure as a `Refusal`."""
        if not self.broken:
            where = "; ".join(self.suspects or ()) or "the entries could not be compared with the plans"
            what = "new entries differ from the plans, though no probe shows it"
            if self.unfelt or not self.suspects:
                what = "no output that was compared depends on the growth"
            what = self.failures[0] if self.failures else what
            return Refusal(
                Kind.CHECK_FAILED,
                f"the function was not shown to be the same: {what}",
                where="" if self.failures else where,
                hint="pass example_inputs= that are typical of the model's use",
            )
        e = self.broken[0]
        first = f"{self.difference.location}; " if self.difference is not None else ""
        return Refusal(
            Kind.CHECK_FAILED,
            f"the function changed: {e.output} differs by {e.float64:.1e} in float64 (bound {e.bound:.0e})",
            where=f"{first}probe {e.probe!r}, {e.mode} mode",
            hint="the function also differs without the requested noise; make a new plan"
            if self.noise
            else "this is a defect in fxgrow or in a registered rule; please report it with the model",
        )

    def __repr__(self) -> str:
        return f"<Certificate: {self._verdict()}>"

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
            lines.append("  proof    none: the model has no record of a growth by fxgrow")
        if self.eval_only:
            lines.append(f"  holds in evaluation mode only, because of {', '.join(self.eval_only)}")
        lines += self._feeling()
        lines += _gradients(self.gradients)
        if self.pairs:
            apart = sum(p.separated for p in self.pairs)
            lines.append(f"  the halves of {apart} of {len(self.pairs)} grown parameters differ after one step")
        for b in self.blocks:
            ending = "" if b.calm else "; this may disturb the trained layers: use a smaller learning rate at first"
            lines.append(f"  {b.block} adds {b.silent:.1e} of its input, {b.moved:.1e} after one small step{ending}")
        lines += [f"  {note}" for note in self.notes]
        if self.difference is not None:
            lines += ["", str(self.difference)]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.ok:
            return "NOT THE SAME FUNCTION" if self.broken or self.failures else "NOT SHOWN TO BE THE SAME FUNCTION"
        if self.noise:
            return f"same function up to the requested noise of {self.noise:g}: see the differences"
        if self.redrawn:
            return f"same distribution: {', '.join(self.redrawn)} draws random numbers in evaluation mode too"
        return "same function"

    def _feeling(self) -> list[str]:
        """State whether the compared outputs depend on the growth, and list what differs from the plans."""
        if not self.unfelt:
            lines = [] if not self.suspects else ["  these differ from the plans, though no probe shows it:"]
            return lines + [f"    {suspect}" for suspect in self.suspects or ()]
        names = ", ".join(self.unfelt[:MOST_NAMES]) + (" …" if len(self.unfelt) > MOST_NAMES else "")
        lines = [f"  no output changes when the new entries of {names} are perturbed, so these numbers"]
        if not self.proof:
            return [f"  no output changes when {names} are perturbed, so these numbers prove nothing"]
        if self.suspects is None:
            return [*lines, "    prove nothing about them, and they could not be compared with the plans"]
        if self.suspects:
            return [*lines, "    prove nothing about them, and these differ from the plans:"] + [
                f"    {suspect}" for suspect in self.suspects
            ]
        return [*lines, "    prove nothing about them: the proof stands alone, and each entry matches the plans"]


MOST_NAMES = 6
"""The largest number of tensors that are listed."""


def _numbers(some: list[OutputError], mode: str, dtype: str) -> list[str]:
    """Format the comparisons in one mode."""
    w = max(some, key=lambda e: e.own / e.tolerance if math.isfinite(e.tolerance) else 0.0)
    probes, outputs = {e.probe for e in some if e.entries}, {e.output for e in some if e.entries}
    return [
        f"  {mode} mode, {len(probes)} probes, {len(outputs)} output(s)",
        f"    float64  largest difference {max(e.float64 for e in some):.1e}  (bound {max(e.bound for e in some):.0e})",
        f"    {dtype:<8} largest difference {max(e.own for e in some):.1e}",
        f"             worst: error {w.own:.1e}, allowed {w.tolerance:.1e} "
        f"({ROUNDING_MULTIPLE:g} x both models' rounding + {ULPS:g} ulp)",
    ]


def _gradients(some: tuple[GradientCheck, ...]) -> list[str]:
    """Format which grown parameters get a gradient."""
    asked = [g for g in some if not g.frozen]
    frozen = [g.parameter for g in some if g.frozen]
    lines = []
    if asked:
        reached = sum(g.reached for g in asked)
        lines.append(f"  gradient reaches the new entries of {reached} of {len(asked)} grown parameters")
        lines += [f"    not {g.parameter}: {g.why}" for g in asked if not g.reached]
    if frozen:
        names = ", ".join(frozen[:MOST_NAMES]) + (" …" if len(frozen) > MOST_NAMES else "")
        lines.append(f"  frozen   {len(frozen)} grown parameters have requires_grad=False: {names}")
    return lines
