"""Options that several commands share, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

CODE = "A factory is code: naming one imports its module and runs it."

MODEL, RESULT, GROWTH = "The model", "The result", "The growth"
"""How the options are grouped in the help."""

Model = Annotated[
    str, typer.Argument(metavar="MODULE:FACTORY", help=f"Makes the model when called without arguments. {CODE}")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        rich_help_panel=MODEL,
        help="Its weights: safetensors, or a checkpoint of tensors alone.",
    ),
]
Grown = Annotated[
    Path | None,
    typer.Option("--grown", metavar="DIR", rich_help_panel=MODEL, help="Go on from the model saved there by --out."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        rich_help_panel=MODEL,
        help="One for each input: 1x3x224x224, 2x16:int64:1000 (numbers below 1000), or one module:function. "
        "Inferred from the first layers if left out.",
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        rich_help_panel=MODEL,
        help="Unpickle weights that hold more than tensors. That runs whatever code their author put there.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=2**31 - 1,
        metavar="N",
        rich_help_panel=GROWTH,
        help="Of new values, and of a factory's random weights.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", rich_help_panel=RESULT, help="For plan.json and model.safetensors."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=RESULT, help="Replace a saved model in that folder.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", rich_help_panel=RESULT, help="Print the plan and write nothing.")]
Check = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", rich_help_panel=RESULT, help="Compare the two models before anything is written."
    ),
]


class Skip(StrEnum):
    """At residual joins."""

    couple = "couple"
    reshape = "reshape"


class Units(StrEnum):
    """Of grouped channels."""

    channels = "channels"
    groups = "groups"


class Init(StrEnum):
    """How new weights are drawn."""

    match = "match"
    kaiming = "kaiming"
    xavier = "xavier"


SkipOption = Annotated[
    Skip,
    typer.Option("--skip", rich_help_panel=GROWTH, help="At residual joins: widen the stream, or adapt skip paths."),
]
GrowOption = Annotated[
    Units,
    typer.Option("--grow", rich_help_panel=GROWTH, help="Of grouped channels: more in each group, or more groups."),
]
InitOption = Annotated[
    Init,
    typer.Option("--init", rich_help_panel=GROWTH, help="How new weights are drawn: like the old ones, or afresh."),
]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        metavar="NAME",
        rich_help_panel=GROWTH,
        help="What new units hold: auto, r2r, net2net, morphism, zero or mean.",
    ),
]
