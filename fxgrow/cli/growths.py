"""Options that say what grows."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options as o

Several = list[str] | None
Node = Annotated[
    list[str],
    typer.Option(
        "--node",
        "-n",
        metavar="NAME",
        rich_help_panel=o.GROWTH,
        help="A module path, an fx node or a parameter, from fxgrow inspect.",
    ),
]
After = Annotated[
    Several,
    typer.Option(
        "--after",
        metavar="NAME",
        rich_help_panel=o.GROWTH,
        help="A module, a container or an fx node to put a block behind.",
    ),
]
Before = Annotated[
    Several, typer.Option("--before", metavar="NAME", rich_help_panel=o.GROWTH, help="The same, in front of it.")
]
WidenOption = Annotated[
    Several,
    typer.Option(
        "--widen",
        "-w",
        rich_help_panel=o.GROWTH,
        metavar="[NAME=]SIZE",
        help="A factor for every layer, or name=size, names with * and ?; sizes are 1.5, to:512, by:8 or keep.",
    ),
]
DeepenOption = Annotated[
    Several,
    typer.Option(
        "--deepen",
        "-d",
        rich_help_panel=o.GROWTH,
        metavar="PLACE[=BLOCK]",
        help="Where blocks go, and which: layer3.1=clone.",
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option("--round-to", metavar="N", rich_help_panel=o.GROWTH, min=1, help="Round widths up to a multiple."),
]
