"""Options of the command line that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

CODE = "A factory is code: naming one imports its module and runs it."

MODEL, RESULT, GROWTH = "The model", "The result", "The growth"
"""Titles of the option groups in the help."""

Model = Annotated[
    str, typer.Argument(metavar="MODULE:FACTORY", help=f"A callable that builds the model without arguments. {CODE}")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        rich_help_panel=MODEL,
        help="The weights: a safetensors file, or a checkpoint that contains only tensors.",
    ),
]
Grown = Annotated[
    Path | None,
    typer.Option(
        "--grown",
        metavar="DIR",
        rich_help_panel=MODEL,
        help="Start from the grown model in this folder, saved by --out.",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        rich_help_panel=MODEL,
        help="One example for each input: 1x3x224x224, 2x16:int64:1000 (integers below 1000), or one module:function. "
        "Inferred from the first layers by default.",
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        rich_help_panel=MODEL,
        help="Unpickle weights that contain more than tensors. This can run any code that the file's author put there.",
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
        help="Seed of new values, and of the factory's random weights.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        rich_help_panel=RESULT,
        help="The output folder for plan.json and model.safetensors.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=RESULT, help="Replace a saved model in that folder.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=RESULT, help="Print the plan without writing anything.")
]
Check = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", rich_help_panel=RESULT, help="Compare the two models before anything is written."
    ),
]


class Skip(StrEnum):
    """What happens at residual joins."""

    couple = "couple"
    reshape = "reshape"


class Units(StrEnum):
    """What grows in grouped layers."""

    channels = "channels"
    groups = "groups"


class Init(StrEnum):
    """How new weights are drawn."""

    match = "match"
    kaiming = "kaiming"
    xavier = "xavier"


SkipOption = Annotated[
    Skip,
    typer.Option(
        "--skip", rich_help_panel=GROWTH, help="At residual joins: widen all coupled layers, or adapt the skip paths."
    ),
]
GrowOption = Annotated[
    Units,
    typer.Option("--grow", rich_help_panel=GROWTH, help="In grouped layers: more channels per group, or more groups."),
]
InitOption = Annotated[
    Init,
    typer.Option(
        "--init",
        rich_help_panel=GROWTH,
        help="How new weights are drawn: match the old ones, or a standard initialization.",
    ),
]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        metavar="NAME",
        rich_help_panel=GROWTH,
        help="How new units are initialized: auto, r2r, net2net, morphism, zero or mean.",
    ),
]
