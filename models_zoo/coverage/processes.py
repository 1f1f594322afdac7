"""Each model in a process of its own: what ends it, or takes too long, costs that model and no other."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # asked for where it is used

Result = dict[str, Any]
Task = Callable[[str, Callable[[Result], None]], Result]
"""Measures what a name stands for; is given a function that is to be told what is known so far."""
PRELOAD = ["torch", "torchvision", "timm", "fxgrow", "fxgrow.models_zoo.coverage.libraries", __name__]
"""Loaded once, before the first model: it takes seconds, and later changes of the sources take no part."""
MOST_WAIT = 5.0
"""Seconds between two looks at the clock."""
PATIENCE = 3600.0
"""Seconds by the clock after which a process is stopped, however little it has worked."""


@dataclass(slots=True)
class _Running:
    name: str
    process: BaseProcess
    pipe: Connection
    started: float = field(default_factory=time.monotonic)
    known: Result = field(default_factory=dict)
    """What it has said last."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def each_alone(
    task: Task,
    names: Iterable[str],
    *,
    jobs: int,
    limit: int,
    patience: float = PATIENCE,
    until: float | None = None,
) -> Iterator[tuple[str, Result]]:
    """Results by name, as they are done.

    A process that is killed or takes too long has what it said last for its result, with the `outcome`
    "killed" or "too slow" and a `why`; one that raises has "error".

    Args:
        task: a function that can be pickled.
        names: what to run it for, each in a new process.
        jobs: how many processes at once.
        limit: of processor time for each, in seconds; where there is no such limit, patience alone counts.
        patience: seconds by the clock for each.
        until: the time by `time.monotonic` from which none is started.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    waiting = deque(names)
    running: list[_Running] = []
    try:
        while running or (waiting and not _past(until)):
            while waiting and len(running) < jobs and not _past(until):
                running.append(_start(context, task, waiting.popleft(), limit))
            wait([r.pipe for r in running], timeout=MOST_WAIT)
            for r in list(running):
                result = _heard(r, limit) or _overdue(r, patience)
                if result is not None:
                    running.remove(r)
                    result["elapsed"] = round(r.seconds, 1)
                    yield r.name, result
    finally:
        for r in running:
            r.process.kill()


def _past(until: float | None) -> bool:
    return until is not None and time.monotonic() >= until


def _start(context: BaseContext, task: Task, name: str, limit: int) -> _Running:
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, name, there, limit), daemon=True)  # type: ignore[attr-defined]  # all have it
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    return _Running(name, process, here)


def _work(task: Task, name: str, pipe: Connection, limit: int) -> None:
    """The process: sends what is known so far as (False, result), and the last one as (True, result)."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
    torch.set_num_threads(1)  # the processes share the cores
    known: Result = {}

    def say(result: Result) -> None:
        known.update(result)
        pipe.send((False, known))

    try:
        result = task(name, say)
        if resource is not None:
            result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        pipe.send((True, result))
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        text = (str(error).strip() or repr(error)).splitlines()[0]
        where = f"{line.filename}:{line.lineno}"
        pipe.send((True, {**known, "outcome": "error", "why": f"{type(error).__name__}: {text} ({where})"}))


def _heard(r: _Running, limit: int) -> Result | None:
    """Reads what a process has sent; its result if it is done."""
    try:
        while r.pipe.poll():
            done, r.known = r.pipe.recv()
            if done:
                r.process.join()
                return r.known
    except EOFError:
        r.process.join()
        return {**r.known, **_ended(r, limit)}
    return None


def _ended(r: _Running, limit: int) -> Result:
    """Why a process is gone that has not sent its result."""
    code = r.process.exitcode or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    if how == "by SIGXCPU":
        return {"outcome": "too slow", "why": f"it was stopped after {limit} s of processor time"}
    more = ", for want of memory perhaps" if how == "by SIGKILL" else ""
    return {"outcome": "killed", "why": f"the process ended {how} after {r.seconds:.0f} s{more}"}


def _overdue(r: _Running, patience: float) -> Result | None:
    if r.seconds <= patience:
        return None
    r.process.kill()
    r.process.join()
    return {**r.known, "outcome": "too slow", "why": f"it was stopped after {patience:.0f} s"}
