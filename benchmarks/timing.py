"""Interleaved timing: everything that is compared runs alternately in one process, because the machine is noisy."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from types import FrameType

ROUNDS = 9
LIMIT = 40
"""Seconds for one call, after which it counts as not finishing."""

Side = Callable[[int], Callable[[], object]]
"""Given the number of the round, prepares (untimed) and returns the call to be timed."""


class TooLong(BaseException):
    """A call took longer than it was given. Not an Exception, so that no handler on the way takes it for its own."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Stop what runs inside after so many seconds, where the platform can.

    Raises:
        TooLong: it did not finish.
    """
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLong(f"no result after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def interleaved(
    sides: Mapping[str, Side], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every side in every round; the order is reversed from one round to the next, round -1 is thrown away.

    Garbage is collected before each call and the result is dropped after the clock has stopped.

    Raises:
        TooLong: a call took longer than LIMIT.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in sides if number % 2 else reversed(list(sides)):
            call = sides[name](number)
            gc.collect()
            with within(LIMIT):
                start = clock()
                result = call()
                taken = clock() - start
            del result, call
            if number >= 0:
                seconds[name].append(taken)
    return seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Times are medians in seconds; the ratio is the median of the ratios within each round."""

    section: str
    what: str
    against: str = ""
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    """Quartiles of the ratio."""
    target: str = ""
    verdict: str = ""
    """met, missed, or nothing where the line is for orientation."""


def compare(
    section: str,
    what: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    most: float | None = None,
    aim: float | None = None,
    around: float | None = None,
) -> Row:
    """A line for two sides of one run; judged by `most` and `aim` (upper bounds), or by the distance `around` 1."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    low, _, high = quantiles(ratios, n=4)
    target = verdict = ""
    if most is not None:
        target = f"<= {most:.1f}" + (f", aim {aim:.1f}" if aim is not None else "")
        verdict = "missed" if ratio > most else "met, aim met" if aim is not None and ratio <= aim else "met"
    if around is not None:
        target = f"1.00 +- {around:.2f}"
        verdict = "met" if abs(ratio - 1) <= around else f"missed: {'faster' if ratio < 1 else 'slower'}"
    return Row(section, what, against, median(ours), median(theirs), ratio, (low, high), target, verdict)


def alone(section: str, what: str, ours: Sequence[float], *, below: float | None = None) -> Row:
    """A line for a side without a peer; judged by an upper bound in seconds."""
    taken = median(ours)
    target = "" if below is None else f"< {below:.0f} s"
    verdict = "" if below is None else "met" if taken < below else "missed"
    return Row(section, what, ours=taken, target=target, verdict=verdict)
