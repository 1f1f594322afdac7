"""Prints results to stdout and errors to stderr, with control characters in foreign text replaced."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import Refusal
from ..plans import Plan
from ..verification import Certificate

WIDTH = 120
"""Largest line width, also used if the output is not a terminal."""
HELD, BROKEN, MISUSED = 0, 1, 2
"""Exit codes: success, the function changed, the call is invalid (or the growth was refused)."""
_MOST = 8
"""Number of lines of a shortened list."""


def console(*, stderr: bool = False) -> Console:
    """Return a new console for stdout or stderr; not cached, because tests and pipes replace the streams."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    made.width = min(made.width, WIDTH) if made.is_terminal else WIDTH
    return made


def harmless(text: str) -> str:
    """Replace control characters, which names in plans and files may contain."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def say(*lines: str, style: str = "") -> None:
    """Print lines to stdout."""
    out = console()
    for line in lines:
        out.print(Text(harmless(line), style=style))


def note(line: str) -> None:
    """Print an explanatory line to stderr, dimmed."""
    console(stderr=True).print(Text(harmless(line), style="dim"))


def show_refusal(refusal: Refusal) -> None:
    """Print a refusal to stderr: its code and reason, then the location, details and the way out."""
    first, *rest = harmless(str(refusal)).splitlines()
    code, _, what = first.partition("  ")
    out = console(stderr=True)
    out.print(Text.assemble((code, "bold red"), "  ", what))
    for line in rest:
        label, words = line[:10], line[10:]
        out.print(Text.assemble((label, "bold" if label.strip() == "try" else "dim"), words))


def show_misuse(what: str, hint: str) -> None:
    """Print what is wrong with a command line, and a hint."""
    out = console(stderr=True)
    out.print(Text.assemble(("error", "bold red"), f"   {harmless(what)}"))
    out.print(Text.assemble(("try", "bold"), f"     {harmless(hint)}"))


def show_plan(plan: Plan) -> None:
    """Print a plan in full."""
    say(*plan.explain().splitlines())


def show_growth(plan: Plan) -> None:
    """Print a summary of a plan: what grows, and how the size and cost of the model change."""
    every = list(plan.every())
    grows = [f"{g.label}  {g.old} -> {g.new} units" for p in every for g in p.growths]
    grows += [f"{i.name}  {i.block}, after {i.node}" for p in every for i in p.inserts]
    out = console()
    out.print(Text(harmless(" then ".join(p.title for p in every)), style="bold"))
    for line in shortened(grows):
        out.print(Text(f"  {harmless(line)}"))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    before, after = plan.before, every[-1].after
    for name, old, new in (
        ("parameters", before.parameters, after.parameters),
        ("bytes", before.bytes, after.bytes),
        ("FLOPs", before.flops, after.flops),
    ):
        table.add_row(f"  {name}", f"{old:,}", f"-> {new:,}", f"x{new / old:.2f}" if old else "")
    table.columns[1].justify = table.columns[2].justify = "right"
    out.print(table)
    for text in shortened([text for p in every for text in p.notes]):
        out.print(Text(f"  {harmless(text)}", style="dim"))


def show_certificate(certificate: Certificate) -> None:
    """Print a certificate, with its first line in green, yellow or red."""
    first, *rest = str(certificate).splitlines()
    out = console()
    colour = "red" if not certificate else "yellow" if certificate.noise or certificate.unfelt else "green"
    out.print(Text(harmless(first), style=f"bold {colour}"))
    for line in rest:
        out.print(Text(harmless(line)))


def shortened(lines: Iterable[str], most: int = _MOST) -> list[str]:
    """Return the first lines of a list, and the number of the remaining ones."""
    every = list(lines)
    return every if len(every) <= most + 1 else [*every[:most], f"… and {len(every) - most} more"]
