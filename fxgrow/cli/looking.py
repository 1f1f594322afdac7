"""The command `fxgrow inspect`, which shows what can grow in a model."""

from __future__ import annotations

import typer

from ..api.inspecting import inspect as survey
from ..loading import load
from . import options as o
from .terminal import note, say


def register(app: typer.Typer) -> None:
    """Add the command `fxgrow inspect` to the application."""
    app.command("inspect", epilog="Example: [bold]fxgrow inspect torchvision.models:resnet18[/bold]")(inspect)


def inspect(
    model: o.Model,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
) -> None:
    """Show which layers can be widened, what grows with them, and why other layers cannot."""
    about = load(model, grown=grown, inputs=inputs)
    found = survey(about.model, about.inputs)
    note(f"{about.name}, {about.origin}")
    say(*str(found).splitlines())
