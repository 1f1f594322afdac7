"""Run each measurement in a separate process, so that a crash or timeout affects only one model."""

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
except ImportError:  # not available on Windows
    resource = None  # type: ignore[assignment]  # checked before use

Result = dict[str, Any]
Task = Callable[[str, Callable[[Result], None]], Result]
"""A function that measures the model of a given name; it receives a callback for intermediate results."""
PRELOAD = ["torch", "torchvision", "timm", "fxgrow", "fxgrow.models_zoo.coverage.libraries", __name__]
"""Modules that the fork server imports once, before the first model. This saves seconds per model, and later source
changes have no effect."""
MOST_WAIT = 5.0
"""Seconds between two checks of the time limits."""
PATIENCE = 3600.0
"""Elapsed seconds after which a process is stopped, however little processor time it has used."""


@dataclass(slots=True)
class _Running:
    """A child process and the results that it has sent so far."""

    name: str
    process: BaseProcess
    pipe: Connection
    started: float = field(default_factory=time.monotonic)
    known: Result = field(default_factory=dict)
    """The last results that it sent."""

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
    """Yield the results with their names, as they are completed.

    If a process is killed or takes too long, its result is the last one that it sent, with the `outcome` "killed" or
    "too slow" and a `why`; if it raises an exception, the outcome is "error".

    Args:
        task: a function that can be pickled.
        names: its arguments, each in a new process.
        jobs: the number of processes at a time.
        limit: processor time for each, in seconds; only `patience` applies on systems without such a limit.
        patience: elapsed time for each, in seconds.
        until: the time, as of `time.monotonic`, after which no process is started.
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
    process = context.Process(target=_work, args=(task, name, there, limit), daemon=True)  # type: ignore[attr-defined]  # all contexts have it
    process.start()
    there.close()  # so that the pipe closes when the process ends
    return _Running(name, process, here)


def _work(task: Task, name: str, pipe: Connection, limit: int) -> None:
    """Run a task in a child process: send intermediate results as (False, result) and the final one as (True,
    result)."""
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
    """Read what a process has sent, and return its result if it is done."""
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
    """Return why a process has ended without sending its result."""
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
