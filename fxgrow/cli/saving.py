"""Shows a plan, or applies it, verifies the result and saves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..api.verifying import verify
from ..errors import Kind, Refusal, VerificationFailed, usage
from ..loading import Loaded, grown_by, save
from ..loading.saved import check_folder
from ..plans import Plan
from .terminal import note, say, show_certificate, show_growth, show_plan


def check_out(out: Path | None, overwrite: bool, dry_run: bool) -> None:
    """Check that the result can be saved, before any work is done.

    Raises:
        UsageError: no folder is given, or it cannot receive a saved model.
    """
    if out is None and not dry_run:
        raise usage(
            Kind.BAD_OPTION,
            "there is no output folder for the grown model",
            hint="add --out DIR, or --dry-run to see the plan",
        )
    if out is not None and not dry_run:
        check_folder(out, overwrite=overwrite)


def check_file(path: Path) -> None:
    """Check that a file can be written at a path, before any work is done.

    Raises:
        UsageError: the path is a folder, or its parent folder does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise usage(Kind.BAD_OPTION, f"{path} cannot be written", hint="name a file in an existing folder")


def finish(about: Loaded, plan: Plan, out: Path | None, dry_run: bool, check: bool) -> None:
    """Show the plan, or apply it, verify the result and save it."""
    note(f"{about.name}, {about.origin}")
    if dry_run or out is None:
        show_plan(plan)
        return
    write(about, plan, out, check=check, checked=True)


def write(about: Loaded, plan: Plan, out: Path, *, check: bool, checked: bool) -> None:
    """Apply a plan to a copy of the model, verify the result and save it.

    Raises:
        UsageError: the plan does not fit the model, or the result does not fit in memory.
        VerificationFailed: the function changed. Nothing is written then.
    """
    larger = grown_by(plan, about.model, checked=checked)
    show_growth(plan)
    if check:
        certificate = verify(about.model, larger, example_inputs=about.analysed)
        show_certificate(certificate)
        if not certificate:
            raise VerificationFailed(_failure(certificate.refusal(), from_a_file=not checked))
    plan_file, weights_file = save(about.original, larger, out, inputs=about.analysed)
    say(f"wrote {plan_file} and {weights_file} ({weights_file.stat().st_size:,} bytes)", style="bold")
    options = [f" --weights-before {about.weights}"] if about.weights is not None else []
    options += [f" --seed {about.seed}"] if about.seed else []
    note(f"fxgrow verify {about.name} {out}{''.join(options)}    compares the models again")
    note(f"fxgrow.loading.restore({about.name.rpartition(':')[2]}(), {str(out)!r})    loads it in Python")


def _failure(refusal: Refusal, *, from_a_file: bool) -> Refusal:
    """Describe why a grown model failed; a plan from a file may have been edited, or made for another model."""
    if not from_a_file:
        return refusal
    what = f"the plan does not preserve the function of this model: {refusal.what}"
    return replace(
        refusal, what=what, hint="it may have been edited, or made for other weights; make a new one with fxgrow plan"
    )
