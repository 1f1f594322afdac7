"""Runs the gate: each row separately, in this process or in several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

from ..api.deepening import plan_deepen
from ..api.growing import plan_grow
from ..api.verifying import verify
from ..api.widening import plan_widen
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal
from ..loading import Loaded, grown_by
from ..loading.inputs import SYNTAX
from ..plans import Plan
from ..verification import Certificate
from .baseline import compare_with, read_baseline
from .file import Gate, Growth, Subject
from .models import loaded_for
from .row import BASELINE, BROKEN, ERROR, HELD, REFUSED, Difference, Row, closest
from .tolerance import DEFAULT, check_common, check_own

Task = tuple[Gate, Subject, Growth | None]


def run_gate(gate: Gate, *, jobs: int = 1) -> Iterator[Row]:
    """Yield the rows of a gate, each as soon as it is computed.

    Args:
        gate: the gate file's contents.
        jobs: the number of processes. Each process imports torch, so several are faster only for large models.

    Raises:
        UsageError: the baseline cannot be read, or was recorded for something else.
    """
    tasks: list[Task] = [(gate, model, growth) for model, growth in gate.pairs]
    if gate.baseline is not None:
        read_baseline(gate)
        tasks += [(gate, model, None) for model in gate.models]
    if jobs <= 1 or len(tasks) <= 1:
        yield from _with_tolerances(gate, (run_row(*task) for task in tasks))
        return
    jobs = min(jobs, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        waiting = {pool.submit(run_row, *task): task for task in tasks}
        yield from _with_tolerances(gate, (_result(future, waiting[future]) for future in as_completed(waiting)))


def _with_tolerances(gate: Gate, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows, and an error row if the file gives a tolerance for an output that no model has."""
    done: list[Row] = []
    for row in rows:
        done.append(row)
        yield row
    more = check_common(gate, done)
    if more is not None:
        yield more


def _result(future: Future[Row], task: Task) -> Row:
    try:
        return future.result()
    except BrokenProcessPool:
        _, model, growth = task
        what = "the process ended without a result; it may have run out of memory"
        return Row(model.name, growth.name if growth else BASELINE, ERROR, 0.0, (), what)


def run_row(gate: Gate, model: Subject, growth: Growth | None) -> Row:
    """Check one model with one growth, or against the baseline (None). All errors are reported in the row."""
    start = time.perf_counter()
    row = Row(model.name, growth.name if growth is not None else BASELINE, HELD, 0.0)
    try:
        if growth is None:
            row = _row(row, compare_with(read_baseline(gate), gate, model))
        else:
            row = _grown(row, gate, model, growth)
    except GrowthRefused as error:
        row = replace(row, status=REFUSED, message=str(error))
    except FxgrowError as error:
        row = replace(row, status=ERROR, message=str(_for_a_file(error.refusal)))
    except Exception as error:  # the user's own code failed; the other rows continue
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        row = replace(row, status=ERROR, message=f"{type(error).__name__}: {reason}")
    return replace(row, seconds=time.perf_counter() - start)


def _for_a_file(refusal: Refusal) -> Refusal:
    """Replace a hint about an argument by one about a key of the gate file."""
    if refusal.kind is Kind.BAD_INPUTS and ("example_inputs" in refusal.hint or "one value for each" in refusal.hint):
        return replace(refusal, hint=f"inputs = [...] with one string for each input: {SYNTAX}")
    return replace(refusal, hint=refusal.hint.partition(", or use --unsafe-pickle")[0])


def _row(row: Row, found: Iterable[Difference], more: Sequence[str] = (), picture: str = "") -> Row:
    differences = closest(list(found))
    if not differences and not more:
        return replace(row, status=ERROR, message="nothing was compared")
    broken = sorted((d for d in differences if not d.held), key=lambda d: -d.error / d.limit)
    if not broken and not more:
        return replace(row, differences=differences)
    said = [*map(str, broken), *more, *([picture] if picture else [])]
    return replace(row, status=BROKEN, differences=differences, message="\n".join(said))


def _grown(row: Row, gate: Gate, model: Subject, growth: Growth) -> Row:
    """Check a growth at each seed: the differences, other failures, and where the models first differ."""
    found: list[Difference] = []
    more: list[str] = []
    picture = ""
    for seed in gate.seeds:
        before = loaded_for(gate, model, seed)
        after = grown_by(_planned(before, growth, seed), before.model, checked=True)
        certificate = verify(before.model, after, example_inputs=before.analysed, seed=seed, training=gate.training)
        check_own(model, (e.output for e in certificate.errors))
        found += differences_of(certificate, seed, model.tolerance.get)
        if not certificate and not certificate.broken:  # whatever the tolerances are
            more.append(f"seed {seed}: {certificate.refusal().what}")
        more += [f"seed {seed}: {failure}" for failure in certificate.failures if certificate.broken]
        if certificate.difference is not None and not picture:
            picture = str(certificate.difference)
    return _row(row, found, more, picture)


def _planned(before: Loaded, growth: Growth, seed: int) -> Plan:
    options: dict[str, Any] = {"seed": seed, **growth.options}
    for key in ("node", "after", "before"):
        if key in options:
            options[key] = list(options[key])
    verbs: dict[str, Callable[..., Plan]] = {"widen": plan_widen, "deepen": plan_deepen, "grow": plan_grow}
    return verbs[growth.verb](before.model, **options, example_inputs=before.inputs)


def differences_of(certificate: Certificate, seed: int, limit: Callable[[str], float | None]) -> Iterator[Difference]:
    """Yield every comparison of a certificate; a limit given for an output replaces the certificate's own."""
    for e in certificate.errors:
        given = limit(e.output)
        given = limit(DEFAULT) if given is None else given
        yield Difference(e.output, seed, e.probe, e.mode, "float64", e.float64, e.bound if given is None else given)
        if certificate.dtype != "float64":
            own = e.tolerance if given is None else given
            yield Difference(e.output, seed, e.probe, e.mode, certificate.dtype, e.own, own)
