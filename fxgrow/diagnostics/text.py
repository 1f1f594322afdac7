"""Formats tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from math import isnan

from rich.console import Console
from rich.table import Table

WIDTH = 120
"""Width of the printed tables, in characters."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format rows with a header; the first column is left-aligned, the others are right-aligned."""
    made = Table(box=None, pad_edge=False, header_style="", padding=(0, 1, 0, 1))
    for number, name in enumerate(head):
        made.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    buffer = StringIO()
    Console(file=buffer, width=WIDTH, no_color=True, highlight=False, markup=False).print(made)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def number(value: float) -> str:
    """Format a number with four significant digits; NaN becomes a dash."""
    return "-" if isnan(value) else f"{value:.4g}"
