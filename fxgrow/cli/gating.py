"""The command `fxgrow gate`, which checks a file of models and growths, for CI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..errors import Kind, usage
from ..gate import BROKEN, ERROR, HELD, REFUSED, Gate, Row, as_json, as_junit, read_gate, record, run_gate
from . import terminal as t
from .saving import check_file

_STYLE = {HELD: "green", BROKEN: "bold red", REFUSED: "yellow", ERROR: "magenta"}


def register(app: typer.Typer) -> None:
    """Add the command `fxgrow gate` to the application."""
    example = "Example: [bold]fxgrow gate gate.toml --jobs 4 --junit gate.xml[/bold]    docs/gate.md shows a gate.toml"
    app.command("gate", epilog=example)(gate)


def gate(
    file: Annotated[Path, typer.Argument(metavar="GATE.TOML", help="File with models, growths, tolerances and seeds.")],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, metavar="N", help="Number of processes.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the rows as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")] = None,
    record_to: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", help="Record the outputs of the models in a file, without checking them."
        ),
    ] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Allow paths in the file that lead outside its folder.")
    ] = False,
) -> None:
    """Check that growths preserve the function of models, and that models compute their recorded outputs.

    The gate file is data, but the factories that it names are code: only run gate files from sources you trust.

    Exit codes: 0 all checks passed; 1 a function changed; 2 something could not be checked.
    """
    plan = read_gate(file, anywhere=allow_outside)
    _check_outputs(file, plan, {"--json": json, "--junit": junit, "--record": record_to})
    if record_to is not None:
        count = record(plan, record_to)
        t.say(f"recorded {count} outputs of {len(plan.models)} models in {record_to}", style="bold")
        t.note(f'baseline = "{record_to.name}" in {file} compares models with these outputs')
        return
    rows = _run(plan, jobs)
    if json is not None:
        json.write_text(as_json(rows), encoding="utf-8")
    if junit is not None:
        junit.write_text(as_junit(rows), encoding="utf-8")
    if any(row.status == BROKEN for row in rows):
        raise typer.Exit(t.BROKEN)
    if any(row.status != HELD for row in rows):
        raise typer.Exit(t.MISUSED)


def _check_outputs(file: Path, plan: Gate, given: dict[str, Path | None]) -> None:
    """Check that the output files can be written, are distinct, and do not overwrite files that the gate reads."""
    taken = {file.resolve(): "the gate file itself"}
    taken |= {m.weights: f"the weights of {m.name}" for m in plan.models if m.weights is not None}
    if plan.baseline is not None and given["--record"] is None:
        taken[plan.baseline] = "the baseline"
    for option, path in given.items():
        if path is None:
            continue
        check_file(path)
        holder = taken.setdefault(path.resolve(), option)
        if holder != option:
            raise usage(Kind.BAD_OPTION, f"{option} {path} would overwrite {holder}", hint="name another file")


def _run(plan: Gate, jobs: int) -> list[Row]:
    """Run the gate, print each row when it is done, and return the rows in the order of the file."""
    if not plan.pairs and plan.baseline is None:
        raise usage(
            Kind.BAD_OPTION,
            "the gate checks nothing: no growth and no baseline",
            hint="add [[growth]], or baseline = …",
        )
    start = time.perf_counter()
    names = [f"{m.name} · {g.name}" for m, g in plan.pairs] + [f"{m.name} · baseline" for m in plan.models]
    width = min(max(map(len, names)), 48)
    rows = []
    for row in run_gate(plan, jobs=jobs):
        rows.append(row)
        _show(row, width)
    counts = [(s, sum(r.status == s for r in rows)) for s in (HELD, BROKEN, REFUSED, ERROR)]
    said = ", ".join(f"{n} {s if s != ERROR else 'not checked'}" for s, n in counts if n)
    t.say(f"{said} in {time.perf_counter() - start:.1f} s", style="bold")
    order = {name: k for k, name in enumerate(names)}
    return sorted(rows, key=lambda row: order.get(row.name, len(order)))


def _show(row: Row, width: int) -> None:
    out = t.console()
    line = Text.assemble(
        (f"{row.status:<7}", _STYLE[row.status]), f"  {t.harmless(row.name):<{width}}  {t.harmless(row.summary)}"
    )
    out.print(line.append(f"  {row.seconds:.1f} s", style="dim"))
    for text in row.message.splitlines()[1:]:
        out.print(Text(f"         {t.harmless(text)}"))
