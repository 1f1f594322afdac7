"""Coverage: every scheme on every axis of every model, applied and compared, or refused with its reason.

python -m fxgrow.models_zoo.coverage.schemes --write docs/coverage.md
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import fxgrow

from .combinations import SCHEMES, combine
from .findings import Row
from .subjects import subjects
from .sweep_tables import write_section

SECTION = "schemes"
HEAD = """## Schemes

`make schemes` runs this again and writes this section.

**What is grown.** Every axis that is born in a layer, with every scheme. A residual stream is one axis, whatever number
of layers write it; of attention the heads and the features of a head are two. Axes grow by a factor of 1.25, which
gives odd numbers of new units, or to twice their size where copies must be uniform. All models are in float64, with
weights that hide nothing: what begins as zeros, as ones or as 1e-6 is drawn anew.
Torchvision's models see small images (vit_b_16 is built for 32 pixels, mvit_v2_s for two steps in time).

**What is compared.** The output in evaluation mode, and in training mode where no dropout over the growing axis is
crossed. The errors are the largest relative differences over all schemes and growths; the bound is 1e-10. Growths that
one plan can hold are carried out together.

**What the table says.** *axes*: how many at least one scheme can grow; then the share of them that each scheme can
grow. *never*: axes that no scheme can grow, by the kind of reason (`fxgrow.Kind`, see [refusals.md](refusals.md)).

"""
GAPS = """

### What a scheme refuses though another can

By kind of reason; models in which every scheme grows every axis are left out.
`tests/planning/test_forced_growth.py` forces a growth of every kind and shows that it breaks.

"""


def rows(names: Sequence[str] | None = None, schemes: Sequence[str] = SCHEMES, *, each: bool = False) -> Iterator[Row]:
    """Yield one row for each model, the zoo's first."""
    for subject in subjects(names):
        yield combine(subject.name, *subject.made(), schemes, each=each)


def violations(row: Row) -> list[str]:
    """Return the errors: growths that change the function, and growths that "auto" misses."""
    broken = [f"{scheme} breaks {what}" for scheme, cell in row.cells.items() for what in cell.broken]
    return broken + (left_out(row) if "auto" in row.cells else [])


def left_out(row: Row) -> list[str]:
    """Return the axes that "auto" cannot grow at all, or not by as small a factor as some scheme can."""
    best = {s: cell.factors for s, cell in row.cells.items()}
    least = {units: min(f[units] for f in best.values() if units in f) for units in row.growable}
    missing = [units for units, factor in least.items() if best["auto"].get(units) != factor]
    return [f"auto cannot grow {row.named(units)}" for units in missing]


def table(found: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""
    schemes = list(found[0].cells)
    lines = [
        f"| model | axes | {' | '.join(schemes)} | never | eval error | training error |",
        f"|---|--:|{'--:|' * len(schemes)}---|--:|--:|",
    ]
    for row in found:
        shares = [_share(len(row.cells[s].units), len(row.growable)) for s in schemes]
        cells = row.cells.values()
        trained = [c.train_error for c in cells if c.train_error is not None]
        errors = [f"{max(c.eval_error for c in cells):.0e}" if row.growable else "–"]
        errors.append(f"{max(trained):.0e}" if trained else "–")
        texts = [row.model, str(len(row.growable)), *shares, kinds(row.never()), *errors]
        lines.append(f"| {' | '.join(texts)} |")
    total = sum(len(row.growable) for row in found)
    shares = [_share(sum(len(row.cells[s].units) for row in found), total) for s in schemes]
    texts = [f"**{text}**" for text in (f"all {len(found)}", str(total), *shares)]
    lines.append(f"| {' | '.join(texts)} | | | |")
    return "\n".join(lines)


def gaps(found: Sequence[Row]) -> str:
    """Format what each scheme refuses although another accepts it, as a Markdown table."""
    schemes = [s for s in found[0].cells if s != "auto"]
    lines = [f"| model | {' | '.join(schemes)} |", f"|---|{'---|' * len(schemes)}"]
    for row in found:
        texts = [kinds(row.refused(s)) for s in schemes]
        if any(text != "–" for text in texts):
            lines.append(f"| {' | '.join([row.model, *texts])} |")
    return "\n".join(lines)


def kinds(refusals: Iterable[fxgrow.Refusal]) -> str:
    """Return the number of refusals of each kind, as text."""
    return ", ".join(f"{kind} {n}" for kind, n in sorted(Counter(r.kind.name for r in refusals).items())) or "–"


def _share(part: int, whole: int) -> str:
    """Return a percentage, never rounded up to 100 or down to 0."""
    if not whole:
        return "–"
    percent = round(100 * part / whole)
    return f"{min(max(percent, 1), 99) if 0 < part < whole else percent} %"


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Measure the catalogue. Return 1 if a growth changed the function, or if "auto" missed a growth, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all if none is named")
    parser.add_argument("--each", action="store_true", help="carry out every growth by itself")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    options = parser.parse_args(argv)
    found: list[Row] = []
    for row in rows(options.names or None, each=options.each):
        found.append(row)
        able = ", ".join(f"{scheme} {len(cell.units)}" for scheme, cell in row.cells.items())
        say(f"{row.model:<34} {len(row.growable):>3} axes: {able}; {row.seconds:.1f} s")
        for text in violations(row):
            say(f"    {text}")
        for scheme, cell in row.cells.items():
            for text in cell.apart:
                say(f"    {scheme} needs two plans: {text}")
    text = table(found) + GAPS + gaps(found)
    say(text)
    if options.write is not None:
        write_section(options.write, SECTION, HEAD + text)
    return 1 if any(violations(row) for row in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
