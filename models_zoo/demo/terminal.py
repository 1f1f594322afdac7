"""Terminal output of the demo: headings, lines of code, progress bars."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from torch import nn

import fxgrow

from .data import Digits
from .training import held_out_correct, train

WIDTH = 120
"""Largest number of columns, and the number used if the output is not a terminal."""


def terminal() -> Console:
    """Return the console for the output."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def heading(console: Console, number: int, text: str) -> None:
    """Print a horizontal rule with the name of a step."""
    console.print()
    console.rule(f"[bold]{number}  {text}", align="left", style="dim")


def show_line(console: Console, line: str) -> None:
    """Print a line of code as a user would type it."""
    console.print(Text.assemble("\n", (">>> ", "dim"), (line, "bold cyan")))


def shortened(explanation: str, most: int = 5) -> str:
    """Return the text of a plan with long sections truncated."""
    sections = []
    for section in explanation.split("\n\n"):
        lines = section.splitlines()
        rest = len(lines) - most
        sections.append("\n".join([*lines[:most], f"  … and {rest} more"] if rest > 1 else lines))
    return "\n".join(sections)


def errors(certificate: fxgrow.Certificate) -> tuple[str, str, str]:
    """Return the largest float64 error, the float32 error that is largest relative to its tolerance, and that
    tolerance."""
    worst = max(certificate.errors, key=lambda e: e.own / e.tolerance)
    return f"{certificate.float64:.1e}", f"{worst.own:.1e}", f"{worst.tolerance:.1e}"


def percent(model: nn.Module, data: Digits) -> float:
    """Return the held-out accuracy in percent."""
    return 100 * held_out_correct(model, data) / len(data.held_out)


def followed(
    console: Console,
    label: str,
    model: nn.Module,
    data: Digits,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[], None] = lambda: None,
) -> tuple[float, ...]:
    """Train a model with a progress bar; return its held-out accuracy before and after each epoch."""
    accuracies = [percent(model, data)]
    columns = (TextColumn("{task.description:<26}"), BarColumn(40), MofNCompleteColumn(), TextColumn("epochs"))
    with Progress(*columns, TextColumn("{task.fields[state]}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(label, total=epochs, state="")

        def note(_: int) -> None:
            accuracies.append(percent(model, data))
            progress.update(task, advance=1, state=f"held-out {accuracies[-1]:6.2f} %")
            after_epoch()

        train(model, data, epochs=epochs, seed=seed, after_epoch=note)
    return tuple(accuracies)
