"""The sweep: measure every torchvision model and a small one of each timm module, each in a separate process.

python -m fxgrow.models_zoo.coverage.sweep [MODEL ...] [--jobs 2] [--write docs/coverage.md]

Results are written to a file as they arrive, so an interrupted sweep can be resumed, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from .libraries import measure_named, names_like
from .measure import Measured
from .processes import Task, each_alone
from .results import Results, code, losses, read
from .sweep_tables import complaints, page, summary, write_section
from .timm_models import missing_modules

SECTION = "sweep"
LIMIT = 900
"""Processor time that one model may take, in seconds."""
SEEDS = 1_000_000


def sweep(
    names: Sequence[str],
    results: Results,
    task: Task,
    *,
    jobs: int,
    limit: int = LIMIT,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Measure the models that have no result yet.

    Args:
        names: the names of the models.
        results: the known results, to which new ones are added.
        task: measures one model.
        jobs: the number of processes.
        limit: processor time for one model, in seconds.
        minutes: time after which no further model is started.
        say: receives a line for each model.
    """
    left = results.left(names)
    say(f"{len(names)} models, {len(names) - len(left)} known already; seed {results.seed}")
    start = time.monotonic()
    until = None if minutes is None else start + 60 * minutes
    for done, (name, result) in enumerate(each_alone(task, left, jobs=jobs, limit=limit, until=until), 1):
        found = cast(Measured, result)
        results.add(name, found)
        spent = time.monotonic() - start
        more = spent / done * (len(left) - done)
        say(f"[{len(names) - len(left) + done:>3}/{len(names)}] {line(name, found)}; about {more / 60:.0f} min left")


def line(name: str, found: Measured) -> str:
    """Format the results of one model as a line of text."""
    if found["outcome"] != "captured":
        return f"{name:<42} {found['outcome']}: {found['why']:.160}"
    grow, stopped = len(found["growing"]), len(found["stopped"])
    text = f"{name:<42} {grow:>3} of {grow + stopped:>3} axes grow"
    if "compared" in found:
        same = sum(one["result"] == "same" for one in found["compared"])
        text += f", {same} of {len(found['compared'])} growths compared are the same"
    if found["undecided"]:
        text += f", inspect and plan_grow differ on {len(found['undecided'])}"
    return f"{text}; {sum(found['seconds'].values()):.1f} s"


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] | None = None) -> int:
    """Run the sweep. Return 1 if a growth changed what a model computes, or if there is any other complaint, else 0."""
    say = say or partial(print, flush=True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help='models, or patterns like "timm.*"; all if none is named')
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, help="begin no model after so many")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds of processor time that one model may take")
    parser.add_argument("--seed", type=int, help="draws what is compared; that of the results there are, or a new one")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="what is found is kept here")
    parser.add_argument("--write", type=Path, help="write the tables into this page, once all are measured")
    parser.add_argument("--against", type=Path, help="results of another version: say what is lost")
    options = parser.parse_args(argv)
    names = names_like(*options.names)
    results = Results(options.results, code(), options.seed, random.SystemRandom().randrange(SEEDS))
    task = partial(measure_named, seed=results.seed)
    sweep(names, results, task, jobs=options.jobs, limit=options.limit, minutes=options.minutes, say=say)
    found = {name: results.found[name] for name in names if name in results.found}
    say(summary(found))
    problems = list(complaints(found))
    problems += _lost(read(options.against) if options.against is not None else {}, found)
    problems += [f"timm has a module that is not swept: {module}" for module in missing_modules()]
    for text in problems:
        say(text)
    missing = len(names) - len(found)
    if missing:
        say(f"{missing} models are left: the same call goes on with them")
    elif options.write is not None:
        write_section(options.write, SECTION, page(found, results.seed))
        say(f"written to {options.write}")
    return 1 if problems else 0


def _lost(before: dict[str, Measured], after: dict[str, Measured]) -> Iterable[str]:
    return [f"{name}: {text}" for name in after if name in before for text in losses(before[name], after[name])]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the child processes end, too
    sys.exit(main())
