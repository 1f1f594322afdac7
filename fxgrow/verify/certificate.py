"""The certificate: the static proof, and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import Kind, Refusal
from .difference import FirstDifference

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

    @property
    def held(self) -> bool:
        """Whether both errors are within bounds."""
        return self.float64 <= self.bound and self.own <= self.tolerance


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """Whether the new entries of one parameter learn: the largest gradient, relative to the model's largest."""

    parameter: str
    gradient: float
    reached: bool
    why: str = ""


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

    @property
    def held(self) -> bool:
        """Whether the function is preserved, in every mode that is claimed."""
        return bool(self.errors) and all(e.held for e in self.errors)

    @property
    def excused(self) -> bool:
        """Whether noise was asked for, and the difference is a number that noise can make."""
        return bool(self.noise) and math.isfinite(self.float64)

    @property
    def float64(self) -> float:
        """The largest relative error in float64, which decides."""
        return max((e.float64 for e in self.errors), default=float("inf"))

    @property
    def worst(self) -> OutputError:
        """The output that comes closest to its tolerance, or is farthest beyond it."""
        return max(self.errors, key=lambda e: max(e.float64 / e.bound, e.own / e.tolerance))

    def refusal(self) -> Refusal:
        """The failure in words."""
        e = self.worst
        first = f"{self.difference.location}; " if self.difference is not None else ""
        return Refusal(
            Kind.CHECK_FAILED,
            f"the function changed: {e.output} differs by {e.float64:.1e} in float64 (bound {e.bound:.0e})",
            where=f"{first}probe {e.probe!r}, {e.mode} mode",
            hint="noise was asked for, so the function had to change by about as much; noise=0 keeps it"
            if self.noise
            else "this is a defect in fxgrow or in a rule that was registered; please report it with the model",
        )

    def __str__(self) -> str:
        lines = ["same function" if self.held else "NOT THE SAME FUNCTION"]
        if self.noise:
            lines = [f"the same function but for noise of {self.noise:g}, which was asked for: see the differences"]
        for mode in dict.fromkeys(e.mode for e in self.errors):
            some = [e for e in self.errors if e.mode == mode]
            w = max(some, key=lambda e: e.own / e.tolerance)
            lines += [
                f"  {mode} mode, {len({e.probe for e in some})} probes, {len({e.output for e in some})} output(s)",
                f"    float64  largest difference {max(e.float64 for e in some):.1e}"
                f"  (bound {max(e.bound for e in some):.0e})",
                f"    {self.dtype:<8} largest difference {max(e.own for e in some):.1e}",
                f"             closest to its tolerance {w.own:.1e} of {w.tolerance:.1e} = {ROUNDING_MULTIPLE:g} x the "
                f"rounding of both ({w.rounding_before:.1e}, {w.rounding_after:.1e}) + {ULPS:g} ulp",
            ]
        if self.schemes:
            lines.append(f"  scheme   {', '.join(self.schemes)}")
        if self.proof:
            lines.append(f"  proof    {len(self.proof)} steps; every sum over new units vanishes")
        else:
            lines.append("  proof    none: this model does not say that it was grown by fxgrow")
        if self.eval_only:
            lines.append(f"  holds in evaluation mode only, because of {', '.join(self.eval_only)}")
        if self.gradients:
            lines.append(
                f"  gradient reaches the new entries of {sum(g.reached for g in self.gradients)} of "
                f"{len(self.gradients)} grown parameters"
            )
            lines += [f"    not {g.parameter}: {g.why}" for g in self.gradients if not g.reached]
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
