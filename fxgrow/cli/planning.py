"""The commands `fxgrow plan` and `fxgrow apply`, which write a growth to a file and apply it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..api.growing import plan_grow
from ..errors import Kind, usage
from ..loading import load
from ..loading.saved import read_plan
from ..loading.wishes import depths, widths
from . import growths as g
from . import options as o
from .saving import check_file, check_out, write
from .terminal import note, say, show_plan


def register(app: typer.Typer) -> None:
    """Add the commands `fxgrow plan` and `fxgrow apply` to the application."""
    example = "Example: [bold]fxgrow plan torchvision.models:resnet18 --widen 1.5 --out plan.json[/bold]"
    app.command("plan", epilog=example)(plan)
    example = (
        "Example: [bold]fxgrow apply plan.json torchvision.models:resnet18 --weights w.safetensors -o grown[/bold]"
    )
    app.command("apply", epilog=example)(apply)


def plan(
    model: o.Model,
    widen: g.WidenOption = None,
    deepen: g.DeepenOption = None,
    round_to: g.RoundTo = None,
    skip: o.SkipOption = o.Skip.couple,
    grow: o.GrowOption = o.Units.channels,
    scheme: o.Scheme = "auto",
    init: o.InitOption = o.Init.match,
    seed: o.Seed = 0,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the plan to this JSON file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Show what a growth would change, with its proof. Nothing is grown, and no weights are needed."""
    if out is not None and (out.is_dir() or (out.exists() and not overwrite)):
        raise usage(Kind.BAD_OPTION, f"{out} already exists", hint="name another file, or add --overwrite")
    if out is not None:
        check_file(out)
    about = load(model, grown=grown, inputs=inputs, seed=seed)
    requested: dict[str, Any] = {"widen": widths(widen, round_to), "deepen": depths(deepen)}
    made = plan_grow(
        about.model,
        **requested,
        skip=skip.value,
        grow=grow.value,
        scheme=scheme,
        init=init.value,
        seed=seed,
        example_inputs=about.inputs,
    )
    note(f"{about.name}, {about.origin}")
    show_plan(made)
    if out is not None:
        out.write_text(made.to_json(), encoding="utf-8")
        say("", f"wrote {out}", style="bold")
        note(f"fxgrow apply {out} {model} --out DIR    applies it, to this or another copy of the model")


def apply(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.JSON", help="A plan from fxgrow plan or from a saved model.")],
    model: o.Model,
    weights: o.Weights = None,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    check: o.Check = True,
    seed: o.Seed = 0,
    unsafe_pickle: o.UnsafePickle = False,
) -> None:
    """Apply a plan to the model it was made for, or to another copy of it; the result is bit-identical everywhere."""
    check_out(out, overwrite, dry_run)
    made = read_plan(plan)
    if dry_run or out is None:
        show_plan(made)
        return
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    note(f"{about.name}, {about.origin}")
    write(about, made, out, check=check, checked=False)
