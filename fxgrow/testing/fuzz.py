"""Fuzzer (`python -m fxgrow.testing.fuzz --minutes 30`): checks all laws on random models and growths."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..errors import UsageError
from .fuzzing.choose import Seeded
from .fuzzing.pairs import Breach, pairs, redrawn
from .fuzzing.processes import Outcome, Stop, alone, logger, together
from .fuzzing.script import save
from .fuzzing.shrink import shrink
from .fuzzing.tally import Tally

GROWTHS = 8
"""Growths per model; the model is analysed only once."""
LEAST = 0.6
"""Least share of pairs that must be growths: a fuzzer whose growths are mostly refused checks little."""
TRIES, SHRINKING = 600, 600.0
"""Limits of the search for a smaller breach: the number of pairs, and seconds."""


def fuzz(
    seed: int,
    *,
    seconds: float,
    models: int | None = None,
    growths: int = GROWTHS,
    folder: str | Path | None = None,
    tally: Tally | None = None,
    stop: Stop = lambda _: False,
) -> Tally:
    """Draw models and growths and check all laws.

    Args:
        seed: the seed of everything drawn; the same seed draws the same pairs in the same order.
        seconds: the time after which it stops, between two models.
        models: the number of models after which it stops.
        growths: the number of growths per model.
        folder: where breaches are saved as scripts, made smaller; None saves nothing.
        tally: the tally to update, so that a caller can watch it; a new one by default.
        stop: called after every pair with the tally; returns whether to stop.
    """
    tally, start, number = Tally() if tally is None else tally, time.monotonic(), 0
    while time.monotonic() - start < seconds and (models is None or number < models):
        for k, (sketch, found) in enumerate(pairs(Seeded((seed, number)), growths=growths)):
            if k == 0:
                tally.model(sketch)
            if isinstance(found, Breach):
                tally.breaches += 1
                tally.pairs += 1
                if folder is not None:
                    _saved(found, Path(folder))
            else:
                tally.pair(found, f"seed {seed}, model {number}")
            if stop(tally):
                return tally
        number += 1
    return tally


def _saved(breach: Breach, folder: Path) -> None:
    """Save a breach, and replace it by a smaller one if one is found."""
    whole = save(breach, folder)
    try:
        small = save(smallest(breach), folder)
    except UsageError as missing:
        logger.info("%s holds the pair as it was drawn: %s", whole, missing)
        return
    if small != whole:
        whole.unlink()


def smallest(breach: Breach, *, tries: int = TRIES, seconds: float = SHRINKING) -> Breach:
    """Return a smaller pair that breaks the same law, as found by Hypothesis.

    Args:
        breach: the breach as it was drawn.
        tries: the largest number of pairs that are tested.
        seconds: the time limit of the search.

    Raises:
        UsageError: Hypothesis is not installed.
    """
    for further in (False, True):
        if (found := redrawn(breach.drawn, breach, further=further)) is not None:
            return shrink(found, partial(redrawn, further=further), tries=tries, seconds=seconds)
    return replace(breach, text=f"NOT REPRODUCED BY ITSELF: {breach.text}")


def _work(about: tuple[int, float, Path], tally: Tally, stop: Stop) -> None:
    torch.set_num_threads(1)
    seed, seconds, folder = about
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's warnings; the laws record them themselves
        fuzz(seed, seconds=seconds, folder=folder, tally=tally, stop=stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer.

    Returns:
        The exit code: 0 if all laws held; 1 if one was broken, too few pairs were growths or a process died; 130 after
        an interruption (the report covers the pairs until then).
    """
    options = _parsed(arguments)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    handler = logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.info("seed %d, %d processes, %g minutes", seed, options.jobs, options.minutes)
    start, outcome = time.monotonic(), Outcome()
    work = [(seed * 1000 + k, 60 * options.minutes, options.folder) for k in range(options.jobs)]
    try:
        if options.jobs == 1:
            alone(_work, work[0], outcome)
        else:
            together(_work, work, outcome)
    finally:
        logger.info("%s", outcome.total.text(time.monotonic() - start))
        code = _verdict(outcome, options.folder)
        logger.removeHandler(handler)
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fxgrow.testing.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="running time in minutes (default: 30)")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes (default: 2)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the run (default: random; it is logged)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("fuzz_breaches"),
        help="folder for scripts that reproduce breaches (default: fuzz_breaches)",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1 or not options.minutes > 0:
        parser.error("--jobs must be at least 1 and --minutes greater than 0")
    return options


def _verdict(outcome: Outcome, folder: Path) -> int:
    """Log the result and return the exit code."""
    total = outcome.total
    if total.breaches:
        logger.info("scripts that reproduce them: %s", folder)
    if total.share < LEAST:
        logger.info("fewer than %.0f%% of the pairs are growths", 100 * LEAST)
    if outcome.died:
        logger.info("%d processes died; the report includes their last tallies", outcome.died)
    if outcome.interrupted:
        logger.info("interrupted")
        return 130
    return 1 if total.breaches or total.share < LEAST or outcome.died else 0


if __name__ == "__main__":
    sys.exit(main())
