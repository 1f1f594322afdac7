"""`make bench`: what growing costs, beside something to compare it with. One table; docs/benchmarks.md explains it.

python benchmarks/run.py [--only NAME ...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from analysis_cost import against_depth, beside_peer, without_peer
from fidelity_cost import checking, tracing
from planning_cost import planning
from rich.console import Console
from rich.table import Table
from timing import ROUNDS, Row
from widening_cost import PAIRS, running, second_widening, whole_network

PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "analysis": beside_peer,
    "large": without_peer,
    "widening": second_widening,
    "whole": whole_network,
    "running": running,
    "depth": against_depth,
    "trace": tracing,
    "planning": planning,
    "checks": checking,
}
COLUMNS = ("measured", "against", "fxgrow", "other", "ratio", "quartiles", "target", "verdict")
MARK = "<!-- What follows is written by `python benchmarks/run.py --write docs/benchmarks.md`. -->"
COLOURS = {"met": "green", "missed": "red", "failed": "red"}


def measure(console: Console, parts: list[str]) -> list[Row]:
    """Run the parts one after the other; a part that breaks becomes a line that says so."""
    rows: list[Row] = []
    for part in parts:
        console.print(f"measuring: {part} …", style="dim")
        try:
            rows.extend(PARTS[part]())
        except Exception as error:  # the others are still worth knowing
            text = str(error).strip().splitlines()
            rows.append(Row(part, f"{type(error).__name__}: {text[0][:100] if text else ''}", verdict="failed"))
    return rows


def setting() -> str:
    """Where and with what this was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "torch-pruning"))
    load = f", load average at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, {os.cpu_count()} cores, "
        f"one thread used{load}. Medians of {ROUNDS} unless said otherwise, {PAIRS} where models run."
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    return (
        row.what,
        row.against,
        _time(row.ours),
        _time(row.theirs),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.spread is None else f"{row.spread[0]:.2f}–{row.spread[1]:.2f}",
        row.target,
        row.verdict,
    )


def table(rows: list[Row]) -> Table:
    """The rows for a terminal."""
    made = Table(title="fxgrow: what growing costs", title_justify="left")
    for column in COLUMNS:
        made.add_column(column, justify="right" if column in COLUMNS[2:6] else "left", overflow="fold")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before.section != row.section:
            made.add_section()
            made.add_row(f"[bold]{row.section}[/bold]")
        *plain, verdict = cells(row)
        colour = COLOURS.get(verdict.split(",")[0].split(":")[0], "default")
        made.add_row(*plain, f"[{colour}]{verdict}[/{colour}]")
    return made


def markdown(rows: list[Row]) -> str:
    """The rows for a page."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|--:|--:|--:|--:|---|---|"]
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before.section != row.section:
            lines.append(f"| **{row.section}** |{' |' * (len(COLUMNS) - 1)}")
        lines.append(f"| {' | '.join(cells(row))} |")
    return "\n".join(lines)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description="Measure what growing costs.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts, not all")
    parser.add_argument("--write", type=Path, help="also put the table into this page, below its mark")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    progress, console = Console(stderr=True), Console()
    if not console.is_terminal:
        console = Console(width=180)
    rows = measure(progress, options.only)
    where = setting()
    console.print(table(rows))
    console.print(where)
    unmet = [r.what for r in rows if r.verdict.startswith(("missed", "failed"))]
    console.print(f"Targets not met: {'; '.join(unmet) or 'none'}")
    if options.write is not None:
        head = options.write.read_text(encoding="utf-8").partition(MARK)[0]
        options.write.write_text(f"{head}{MARK}\n\n{where}\n\n{markdown(rows)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
