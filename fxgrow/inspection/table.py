"""Formats the survey of a model as tables for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO

from rich.console import Console
from rich.table import Table

from .survey import JoinSite, Site, Survey

WIDTH = 120
"""Width of the printed tables, in characters."""


@dataclass(frozen=True, slots=True, repr=False)
class Inspection:
    """The result of `inspect`: producers that can be widened, residual joins, and the refusals; prints as tables."""

    survey: Survey

    @property
    def sites(self) -> tuple[Site, ...]:
        """All producers, in execution order."""
        return self.survey.sites

    @property
    def joins(self) -> tuple[JoinSite, ...]:
        """All residual joins, in execution order."""
        return self.survey.joins

    @property
    def widenable(self) -> tuple[Site, ...]:
        """Producers that can be widened."""
        return tuple(s for s in self.sites if s.widenable)

    @property
    def refused(self) -> tuple[Site, ...]:
        """Producers that cannot be widened, each with its refusal."""
        return tuple(s for s in self.sites if not s.widenable)

    def __repr__(self) -> str:
        return (
            f"<Inspection: {len(self.widenable)} of {len(self.sites)} layers can be widened, {len(self.joins)} joins>"
        )

    def __str__(self) -> str:
        tables = [self._producers()]
        if self.joins:
            tables.append(self._joins())
        if self.refused:
            tables.append(self._refusals())
        buffer = StringIO()
        console = Console(file=buffer, width=WIDTH, no_color=True, highlight=False)
        for title, table in tables:
            console.print(title, soft_wrap=True)
            console.print(table)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())

    def _producers(self) -> tuple[str, Table]:
        table = _table()
        for name in ("producer", "width", "consumers", "grows together with", "joins"):
            table.add_column(name, justify="right" if name == "width" else "left", overflow="fold")
        for s in self.widenable:
            table.add_row(s.path, str(s.width), _list(s.readers), _list(s.together), _list(s.joins))
        return f"{len(self.widenable)} of {len(self.sites)} producers can be widened", table

    def _joins(self) -> tuple[str, Table]:
        table = _table()
        for name in ("join", "branches at", "main path ends at", "skip path ends at"):
            table.add_column(name, overflow="fold")
        for j in self.joins:
            table.add_row(j.node, j.branch, j.main, j.skip)
        title = f'{len(self.joins)} residual joins (skip="reshape" adapts the skip path, "couple" widens both)'
        return title, table

    def _refusals(self) -> tuple[str, Table]:
        table = _table()
        for name in ("producer", "width", "reason"):
            table.add_column(name, overflow="fold")
        for s in self.refused:
            assert s.refusal is not None
            why = s.refusal.what.partition(": ")[2] or s.refusal.what
            table.add_row(s.path, str(s.width), f"{s.refusal.kind.value} {why}\n{s.refusal.where}")
        return f"{len(self.refused)} of {len(self.sites)} producers cannot be widened", table


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 2))


def _list(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" + {len(names) - most}" if len(names) > most else "")
