"""Options of the command line that select what grows."""

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
        help="The layer to widen: a module path, an fx node or a parameter, as listed by fxgrow inspect.",
    ),
]
After = Annotated[
    Several,
    typer.Option(
        "--after",
        metavar="NAME",
        rich_help_panel=o.GROWTH,
        help="Insert after this module, container or fx node.",
    ),
]
Before = Annotated[
    Several,
    typer.Option(
        "--before", metavar="NAME", rich_help_panel=o.GROWTH, help="Insert before this module, container or fx node."
    ),
]
WidenOption = Annotated[
    Several,
    typer.Option(
        "--widen",
        "-w",
        rich_help_panel=o.GROWTH,
        metavar="[NAME=]SIZE",
        help="A factor for every layer, or name=size. Names may contain * and ?; sizes are 1.5, to:512, by:8 or keep.",
    ),
]
DeepenOption = Annotated[
    Several,
    typer.Option(
        "--deepen",
        "-d",
        rich_help_panel=o.GROWTH,
        metavar="PLACE[=BLOCK]",
        help="Where to insert a block, and optionally which one: layer3.1=clone.",
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        "--round-to", metavar="N", rich_help_panel=o.GROWTH, min=1, help="Round widths up to a multiple of N."
    ),
]
