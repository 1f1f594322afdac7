"""Runs the fuzzer in several processes; each sends its tally regularly, so that it is not lost."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from .tally import Tally

logger = logging.getLogger("fxgrow.fuzz")
EVERY = 60.0
"""Seconds between two lines of progress."""
TOLD = 5.0
"""Seconds between two tallies of a process; a killed process loses at most this much."""

Stop = Callable[[Tally], bool]
"""Receives a tally regularly; returns whether to stop."""
Task = Callable[[Any, Tally, Stop], None]
"""A run: called with its parameters, the tally to update, and a `Stop`. It must be importable by other processes."""


@dataclass(slots=True)
class Progress:
    """Logs the progress of a run at intervals."""

    start: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def tell(self, tally: Tally) -> bool:
        """Log a line if it is time for one. Returns False: it never stops a run."""
        now = time.monotonic()
        if now - self.said >= EVERY:
            self.said = now
            logger.info("%.0f s: %s", now - self.start, tally.progress())
        return False


@dataclass(slots=True)
class Outcome:
    """The result of all runs."""

    total: Tally = field(default_factory=Tally)
    interrupted: bool = False
    died: int = 0
    """Number of processes that ended before their work did."""


def alone(task: Task, about: Any, outcome: Outcome) -> None:
    """Run in this process; an interruption ends the run and keeps its tally."""
    try:
        task(about, outcome.total, Progress().tell)
    except KeyboardInterrupt:
        outcome.interrupted = True


def together(task: Task, each: Sequence[Any], outcome: Outcome) -> None:
    """Run in several processes. The first interruption asks them to end, the second one terminates them."""
    context = multiprocessing.get_context("spawn")
    stop, processes = context.Event(), dict[Connection, SpawnProcess]()

    def interrupt(number: int, frame: FrameType | None) -> None:
        for process in processes.values() if outcome.interrupted else ():
            process.terminate()
        outcome.interrupted = True
        stop.set()

    known = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes started now ignore it too
    try:
        for about in each:
            here, there = context.Pipe(duplex=False)
            processes[here] = context.Process(target=_work, args=(task, about, there, stop))
            processes[here].start()
            there.close()
        signal.signal(signal.SIGINT, interrupt)
        tallies = _listen(list(processes))
    finally:
        signal.signal(signal.SIGINT, known)
    for tally in tallies:
        outcome.total.add(tally)
    for process in processes.values():
        process.join()
        outcome.died += process.exitcode != 0


def _listen(ends: Sequence[Connection]) -> list[Tally]:
    """Return the last tally of each process, when all have ended."""
    told, left, progress = dict[int, Tally](), list(ends), Progress()
    while left:
        for one in wait(left, timeout=1.0):
            assert isinstance(one, Connection)
            try:
                told[ends.index(one)] = one.recv()
            except EOFError:
                left.remove(one)
        progress.tell(_sum(told.values()))
    return list(told.values())


def _sum(some: Any) -> Tally:
    total = Tally()
    for tally in some:
        total.add(tally)
    return total


def _work(task: Task, about: Any, end: Connection, stop: Any) -> None:
    tally, told = Tally(), time.monotonic()

    def tell(now: Tally) -> bool:
        nonlocal told
        if time.monotonic() - told >= TOLD:
            told = time.monotonic()
            end.send(now)
        return bool(stop.is_set())

    try:
        task(about, tally, tell)
    finally:
        end.send(tally)
