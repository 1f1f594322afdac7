"""`python -m fxgrow.testing.fuzz --minutes 30`: random models, random growths, all laws, until the time is over."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .fuzzing.choose import Seeded
from .fuzzing.growths import Growth
from .fuzzing.pairs import Breach, broken, pairs
from .fuzzing.script import save
from .fuzzing.shrink import shrink
from .fuzzing.sketch import Sketch
from .fuzzing.tally import Tally

GROWTHS = 8
"""Asked of each model: the model's analysis is paid for once."""
LEAST = 0.6
"""Share of pairs that are to be growths: a fuzzer that is refused all the time proves nothing."""


def fuzz(
    seed: int, *, seconds: float, models: int | None = None, growths: int = GROWTHS, folder: Path | None = None
) -> Tally:
    """Draw models and growths and watch all laws.

    Args:
        seed: of everything that is drawn; the same seed draws the same pairs in the same order.
        seconds: when to stop, between two models.
        models: stop behind so many of them, too.
        growths: asked of each model.
        folder: where breaches are saved, shrunk, as scripts; none is if it is None.
    """
    tally, start, number = Tally(), time.monotonic(), 0
    while time.monotonic() - start < seconds and (models is None or number < models):
        for k, (sketch, found) in enumerate(pairs(Seeded((seed, number)), growths=growths)):
            if k == 0:
                tally.model(sketch)
            if isinstance(found, Breach):
                tally.breaches += 1
                tally.pairs += 1
                if folder is not None:
                    save(smallest(found), folder)
            else:
                tally.pair(found, f"seed {seed}, model {number}")
        number += 1
    return tally


def smallest(breach: Breach, *, tries: int = 600) -> Breach:
    """The same law, broken by a smaller pair."""

    def breaks(sketch: Sketch, growths: tuple[Growth, ...]) -> bool:
        found = broken(sketch, growths, further=further)
        return found is not None and found.law == breach.law

    further = False
    if not breaks(breach.sketch, breach.growths):
        further = True
        if not breaks(breach.sketch, breach.growths):
            return replace(breach, text=f"NOT REPRODUCED BY ITSELF: {breach.text}")
    sketch, growths = shrink(breach.sketch, breach.growths, breaks, tries=tries)
    return Breach(sketch, growths, breach.law, str(broken(sketch, growths, further=further)))


def _work(told: tuple[int, float, Path]) -> Tally:
    torch.set_num_threads(1)
    seed, seconds, folder = told
    return fuzz(seed, seconds=seconds, folder=folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer; 0 if all laws held, 1 if one was broken or too few pairs were growths."""
    parser = argparse.ArgumentParser(prog="python -m fxgrow.testing.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run; drawn and told otherwise")
    parser.add_argument("--folder", type=Path, default=Path("fuzz_breaches"), help="where breaches are saved")
    told = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if told.seed is None else told.seed
    out = logging.getLogger("fxgrow.fuzz")
    out.addHandler(logging.StreamHandler(sys.stdout))
    out.setLevel(logging.INFO)
    out.info("seed %d, %d processes, %g minutes", seed, told.jobs, told.minutes)
    start, total = time.monotonic(), Tally()
    work = [(seed * 1000 + k, 60 * told.minutes, told.folder) for k in range(told.jobs)]
    if told.jobs == 1:
        total = _work(work[0])
    else:
        with multiprocessing.get_context("spawn").Pool(told.jobs) as pool:
            for tally in pool.imap_unordered(_work, work):
                total.add(tally)
    out.info("%s", total.text(time.monotonic() - start))
    if total.breaches:
        out.info("scripts that show them: %s", told.folder)
    if total.share < LEAST:
        out.info("fewer than %.0f%% of the pairs are growths", 100 * LEAST)
    return 1 if total.breaches or total.share < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
