"""The command `fxgrow verify`, which compares two models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from ..asserting import compared
from ..errors import Kind, UsageError
from ..loading import build, parse_inputs, read_weights, restore, use_weights
from ..loading.inputs import SYNTAX
from ..loading.saved import read_saved
from . import options as o
from .terminal import BROKEN, note, show_certificate


def register(app: typer.Typer) -> None:
    """Add the command `fxgrow verify` to the application."""
    example = "Example: [bold]fxgrow verify torchvision.models:resnet18 grown --weights-before old.safetensors[/bold]"
    app.command("verify", epilog=example)(verify)


def verify(
    before: o.Model,
    after: Annotated[
        str,
        typer.Argument(metavar="MODULE:FACTORY|DIR", help="The second model: a factory, or a folder from --out."),
    ],
    weights_before: Annotated[
        Path | None, typer.Option("--weights-before", metavar="FILE", help="Weights of the first model.")
    ] = None,
    weights_after: Annotated[
        Path | None, typer.Option("--weights-after", metavar="FILE", help="Weights of the second model.")
    ] = None,
    inputs: o.Inputs = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**31 - 1, metavar="N", help="Seed of the probe inputs and of random weights."
        ),
    ] = 0,
    training: Annotated[bool, typer.Option("--training/--eval-only", help="Also compare in training mode.")] = True,
    unsafe_pickle: o.UnsafePickle = False,
) -> None:
    """Compare two models on seeded probe inputs, in float64 and in their own dtype.

    Exit codes: 0 the same function; 1 different functions; 2 the models cannot be compared.
    """
    folder = None if ":" in after and not Path(after).is_dir() else Path(after)
    texts = list(inputs or (read_saved(folder).inputs if folder is not None else ()))
    values = parse_inputs(texts)
    old = _with(build(before, seed=seed), weights_before, unsafe_pickle)
    made = build(after, seed=seed) if folder is None else restore(build(before, seed=seed), folder, values)
    new = _with(made, weights_after, unsafe_pickle)
    given = [str(w) if w else "from the factory" for w in (weights_before, weights_after or folder)]
    note(f"before  {before}, weights {given[0]}")
    note(f"after   {after}, weights {given[1]}")
    try:
        certificate = compared(old, new, values, seed=seed, training=training)
    except UsageError as error:
        if values is not None or error.kind is not Kind.NOT_TRACEABLE:
            raise
        hint = f"give --input, because inputs are inferred from traces, but models run without a trace too: {SYNTAX}"
        raise UsageError(replace(error.refusal, hint=hint)) from error
    show_certificate(certificate)
    if not certificate:
        if weights_before is None and weights_after is None and folder is None:
            note(
                "both models have weights from their factories; --weights-before and --weights-after load trained ones"
            )
        raise typer.Exit(BROKEN)


def _with(model: nn.Module, weights: Path | None, unsafe_pickle: bool) -> nn.Module:
    if weights is not None:
        use_weights(model, read_weights(weights, unsafe_pickle=unsafe_pickle), str(weights))
    return model
