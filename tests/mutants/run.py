"""All faults, one after another: each is planted, and the suite must catch it."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest

from . import certificates, modules, safeguards
from .catalogue import CATALOGUE
from .fx_patches import fx_put_back
from .lies import Plant
from .rules import caught, faults
from .watch import breaches

WATCHED: dict[str, tuple[Plant, Callable[[], str]]] = {
    name: (plant, watch.noticed)
    for watch in (modules, certificates, safeguards)
    for name, plant in watch.FAULTS.items()
}
"""Faults with a watch of their own: how each is planted, and what says what is wrong then."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a planted fault."""

    name: str
    noticed: str
    """What gave it away; nothing if it survived."""
    seconds: float

    def __str__(self) -> str:
        what = f"caught    {self.seconds:5.1f} s" if self.noticed else f"SURVIVED  {self.seconds:5.1f} s"
        return f"{what}  {self.name}" + (f"  [{self.noticed.splitlines()[0][:80]}]" if self.noticed else "")


def names() -> list[str]:
    """All planted faults: those of grown models first, then those of traces and certificates, and of every rule."""
    return [*CATALOGUE, *WATCHED, *faults()]


def fate(name: str) -> Fate:
    """Plant one fault and see what notices it."""
    start = time.monotonic()
    with fx_put_back(), pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning would be an error in pytest, and give the fault away
        if name in CATALOGUE:
            plant, first = CATALOGUE[name]
            plant(patch)
            noticed = str(next(breaches(first), ""))
        elif name in WATCHED:
            plant, watch = WATCHED[name]
            plant(patch)
            noticed = watch()
        else:
            noticed = caught(faults()[name], patch)
    return Fate(name, noticed, time.monotonic() - start)


def fates(jobs: int) -> Iterator[Fate]:
    """The fate of every fault, several at a time."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(fate, names(), chunksize=4)


def report(jobs: int) -> int:
    """Write a line for each fault and the kill rate; 0 if every fault was caught, and none where none is planted."""
    start, found = time.monotonic(), list[Fate]()
    alarm = str(next(breaches(), "")) or modules.noticed() or certificates.noticed() or safeguards.noticed()
    if alarm:
        sys.stdout.write(f"a law is broken without any fault, so that nothing would follow: {alarm}\n")
        return 1
    for one in fates(jobs):
        found.append(one)
        sys.stdout.write(f"{one}\n")
        sys.stdout.flush()
    killed = sum(bool(one.noticed) for one in found)
    share = f"{100 * killed / len(found):.4g} %"
    took = time.monotonic() - start
    sys.stdout.write(f"\n{killed} of {len(found)} planted faults caught: {share}, in {took:.0f} s\n")
    for one in found:
        if not one.noticed:
            sys.stdout.write(f"survived: {one.name}\n")
    return 0 if killed == len(found) else 1
