"""Options that several commands share, with their help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

CODE = "A factory is code: naming one imports its module and runs it."

Model = Annotated[
    str, typer.Argument(metavar="MODULE:FACTORY", help=f"Makes the model when called without arguments. {CODE}")
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Its weights: safetensors, or a checkpoint of tensors alone."),
]
Grown = Annotated[
    Path | None,
    typer.Option("--grown", help="A folder from --out: go on from the model grown there.", metavar="DIR"),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        help="One for each input: 1x3x224x224, 2x16:int64:1000 (numbers below 1000), or one module:function. "
        "By default inferred from the first layers.",
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        help="Unpickle checkpoints that hold more than tensors. That runs whatever code their author put there.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for plan.json and model.safetensors.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a saved model in that folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
Check = Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the two models before anything is written.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**40, help="Of new values, and of a factory's random weights.")]


class Skip(str, Enum):
    """At residual joins."""

    couple = "couple"
    reshape = "reshape"


class Units(str, Enum):
    """Of grouped channels."""

    channels = "channels"
    groups = "groups"


class Init(str, Enum):
    """How new weights are drawn."""

    match = "match"
    kaiming = "kaiming"
    xavier = "xavier"


SkipOption = Annotated[
    Skip, typer.Option("--skip", help="At residual joins: widen the whole stream, or adapt the skip paths.")
]
GrowOption = Annotated[Units, typer.Option("--grow", help="Of grouped channels: more in each group, or more groups.")]
InitOption = Annotated[Init, typer.Option("--init", help="How new weights are drawn: like the old ones, or afresh.")]
Scheme = Annotated[
    str, typer.Option("--scheme", help="What new units hold: auto, r2r, net2net, morphism, zero or mean.")
]
