"""Measure one model: whether it is captured, which of its axes grow, and whether the grown networks compute the same
function.

Every comparison is with the original module, not its trace: in float64 where the module supports it, else in float32;
in evaluation mode, and in training mode if the trace is valid for it and the growth preserves it.
"""

from __future__ import annotations

import copy
import gc
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import fx, nn

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.capture.inputs.call import Call
from fxgrow.inspection.growable import BY_WIDTH
from fxgrow.verification.certificate import FLOAT64_BOUND
from fxgrow.verification.compare import distance, nothing_finite, run, twin
from fxgrow.verification.probes import Probe, probes

from .inner_axes import Inner, asks, planned
from .subjects import Subject, settle

SMALL = 30_000_000
"""Models with fewer parameters are grown and compared; for larger ones, the growths are only planned and proved."""
SAMPLE = 5
"""Number of axes that `inspect` reports as growable, drawn at random and each planned separately."""
TRIES = 30
"""Number of random places at which an insertion is tried before giving up."""
FLOAT32_BOUND = 1e-4
"""Largest allowed relative difference for models that run in float32 only."""
ROUNDINGS = 10.0
"""A difference counts as rounding if it is below this multiple of the effect of perturbing the inputs in the last
place."""
LEFT_OUT = "left out: "
WHOLE = 2.0
"""The factor by which the whole network is widened."""


class Stopped(TypedDict):
    """An axis that does not grow, and the reason."""

    name: str
    width: int
    code: str
    kind: str
    why: str


class Compared(TypedDict, total=False):
    """One growth, applied and compared with the original module: "same", "differs", or why it was not compared."""

    what: str
    result: str
    evaluation: float
    """Largest relative difference in evaluation mode."""
    training: float
    untrained: str
    """Why training mode was not compared."""


class Measured(TypedDict, total=False):
    """The results of one model. Unknown entries are left out."""

    outcome: str
    """"captured" or "not captured"; "killed", "too slow" or "error" if it could not be measured to the end."""
    why: str
    during: str
    """The last step that was started."""
    parameters: int
    modes: list[str]
    """The mode for which the trace is valid; empty for both."""
    fixed: int
    """Number of axes that are fixed by inputs or outputs, and hence not inner axes."""
    growing: list[str]
    stopped: list[Stopped]
    undecided: list[str]
    """Disagreements between `inspect` and `plan_grow`, and axes that `inspect` reports as growable but that do not grow
    alone."""
    compared: list[Compared]
    places: dict[str, int]
    """Number of refused insertions at the drawn places, by kind of refusal."""
    seconds: dict[str, float]


Say = Callable[[Measured], None]
"""Receives the results so far, so that they are kept if the process ends."""


def measure(subject: Subject, seed: int, say: Say = lambda _: None) -> Measured:
    """Measure one model.

    Args:
        subject: the model.
        seed: together with the model's name, determines what is grown and where a block is inserted.
        say: receives the results so far before each step.
    """
    found: Measured = {"outcome": "error", "seconds": {}}
    clock = _Clock(found, say)
    torch.manual_seed(0)
    with clock("build"):
        inputs, model = subject.inputs(), subject.build().eval()
        found["parameters"] = sum(p.numel() for p in model.parameters())
        small = found["parameters"] < SMALL
        if small and _takes_double(model, inputs):
            model, inputs = model.double(), _double(inputs)
        if small:
            settle(model, inputs)
    with clock("trace"):
        try:
            gm = fxgrow.trace(model, inputs)
        except fxgrow.FxgrowError as refused:
            found |= {"outcome": "not captured", "why": _sentence(refused.refusal)}
            return found
        found |= {"outcome": "captured", "modes": list(gm.meta.get("fxgrow_modes") or ())}
    with clock("analyse"):
        analysis_of(gm)
    with clock("inspect"):
        sites = fxgrow.inspect(gm).sites
    with clock("axes"):
        axes = list(_decided(gm, {site.path: site.refusal for site in sites}))
        found["fixed"] = sum(not axis.inner for axis in axes)
        found["growing"] = [axis.name for axis in axes if axis.refusal is None]
        found["stopped"] = [_stopped(axis) for axis in axes if axis.refusal is not None and axis.inner]
    with clock("whole network"):
        whole = _planned_whole(gm)
        found["undecided"] = list(_undecided({site.path: site.refusal for site in sites}, whole))
    draw = random.Random(f"{seed} {subject.name}")
    with clock("sample"):
        able = [axis for axis in axes if axis.refusal is None]
        found["undecided"] += list(_not_alone(gm, draw.sample(able, min(SAMPLE, len(able)))))
    if small:
        judge = _Judge(model, gm, inputs)
        with clock("compare"):
            found["compared"], found["places"] = [], {}
            for one in _growths(gm, axes, whole, draw, found["places"]):
                found["compared"].append(judge(*one))
                gc.collect()  # graph modules contain reference cycles
                say(found)
    return found


class _Clock:
    """Records the current step and the processor time that it takes."""

    def __init__(self, found: Measured, say: Say) -> None:
        self.found, self.say = found, say

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        self.found["during"] = what
        self.say(self.found)
        start = time.process_time()
        try:
            yield
        finally:
            self.found["seconds"][what] = round(time.process_time() - start, 2)


def _takes_double(model: nn.Module, inputs: Sequence[Any]) -> bool:
    """Return whether a model runs in float64; one that creates float32 tensors may not."""
    try:
        with torch.no_grad():
            copy.deepcopy(model).double()(*_double(inputs))
    except RuntimeError:  # mismatched dtypes
        return False
    return True


def _double(thing: Any) -> Any:
    """Return the inputs in float64."""
    return Call(tuple(thing)).changed(lambda x: x.double() if x.is_floating_point() else x).args


def _sentence(refusal: fxgrow.Refusal) -> str:
    """Return the first sentence of a refusal, with its location."""
    what = re.split(r"\. (?=[A-Z])", " ".join(refusal.what.split()))[0]
    return f"{what} ({' '.join(refusal.where.split())})" if refusal.where else what


def _stopped(axis: Inner) -> Stopped:
    why = axis.refusal
    assert why is not None
    what = why.what.partition(": ")[2] or why.what
    return {"name": axis.name, "width": axis.width, "code": why.kind.value, "kind": why.kind.name, "why": what}


def _decided(gm: fx.GraphModule, inspected: dict[str, fxgrow.Refusal | None]) -> Iterator[Inner]:
    """Yield each axis with its refusal. The result of `inspect` for a layer applies to its axis, unless the layer has
    two axes, or the axis may grow by a smaller factor than the one that `inspect` tests."""
    for axis in asks(gm, analysis_of(gm)):
        refusal = inspected[axis.ask.name]
        if (refusal is None and not axis.alone) or (refusal is not None and refusal.kind in BY_WIDTH):
            plan = planned(gm, axis.ask)
            refusal = plan if isinstance(plan, fxgrow.Refusal) else None
        yield Inner(axis.ask, axis.width, axis.alone, refusal)


def _planned_whole(gm: fx.GraphModule) -> fxgrow.Plan | fxgrow.Refusal:
    try:
        return fxgrow.plan_grow(gm, widen=WHOLE)
    except fxgrow.FxgrowError as refused:
        return refused.refusal


def _undecided(inspected: dict[str, fxgrow.Refusal | None], whole: fxgrow.Plan | fxgrow.Refusal) -> Iterator[str]:
    """Yield the layers on which `inspect` and `plan_grow` disagree."""
    notes = () if isinstance(whole, fxgrow.Refusal) else whole.notes
    left = {name: why for note in notes if note.startswith(LEFT_OUT) for name, _, why in [_note(note)]}
    for name, refusal in inspected.items():
        if isinstance(whole, fxgrow.Refusal):
            if refusal is None:
                yield f"{name}: inspect offers it, and plan_grow refuses everything: {whole.what}"
        elif refusal is None and name in left:
            yield f"{name}: inspect offers it, and plan_grow leaves it out: {left[name]}"
        elif refusal is not None and name not in left:
            yield f"{name}: plan_grow grows it, and inspect says: {refusal.what}"


def _not_alone(gm: fx.GraphModule, some: Sequence[Inner]) -> Iterator[str]:
    """Yield the axes that `inspect` reports as growable and `widen` refuses."""
    for axis in some:
        plan = planned(gm, axis.ask)
        if isinstance(plan, fxgrow.Refusal):
            yield f"{axis.name}: inspect offers it, and widen refuses it: {plan.what}"


def _note(note: str) -> tuple[str, str, str]:
    return note.removeprefix(LEFT_OUT).partition(": ")


Growth = tuple[str, fxgrow.Plan | fxgrow.Refusal]


def _growths(
    gm: fx.GraphModule,
    axes: Sequence[Inner],
    whole: fxgrow.Plan | fxgrow.Refusal,
    draw: random.Random,
    places: dict[str, int],
) -> Iterator[Growth]:
    """Yield a random axis, a random insertion, and the growth of the whole network."""
    able = [axis for axis in axes if axis.refusal is None]
    if able:
        axis = draw.choice(able)
        yield f"widen {axis.name}", planned(gm, axis.ask)
    yield _insertion(gm, draw, places)
    if able or not isinstance(whole, fxgrow.Refusal):
        yield f"grow everything by {WHOLE}", whole


def _insertion(gm: fx.GraphModule, draw: random.Random, places: dict[str, int]) -> Growth:
    """Insert a block after the first node, in random order, that accepts one."""
    nodes = [node.name for node in gm.graph.nodes if node.op.startswith("call_")]
    draw.shuffle(nodes)
    refused: Counter[str] = Counter()
    last: fxgrow.Refusal | None = None
    for name in nodes[:TRIES]:
        try:
            plan = fxgrow.plan_deepen(gm, name)
        except fxgrow.FxgrowError as error:
            refused[error.refusal.kind.name] += 1
            last = error.refusal
        else:
            places |= refused
            return f"deepen after {name}", plan
    places |= refused
    assert last is not None, "a network has operators"
    return f"deepen at {min(len(nodes), TRIES)} places", last


class _Judge:
    """Compares grown networks with the original module."""

    def __init__(self, model: nn.Module, gm: fx.GraphModule, inputs: Sequence[Any]) -> None:
        self.model, self.gm = model, gm
        self.probe: Probe = probes(inputs, 0)[0]
        dtypes = {p.dtype for p in model.parameters()}
        self.bound = FLOAT32_BOUND if torch.float32 in dtypes else FLOAT64_BOUND
        self.rounding: dict[bool, float] = {}
        self.before = {False: run(twin(model, None, training=False), self.probe, seed=0)}
        modes = gm.meta.get("fxgrow_modes")
        self.untrained = f"the trace stands for {' and '.join(modes)} only" if modes else ""
        if not self.untrained:
            try:
                self.before[True] = run(twin(model, None, training=True), self.probe, seed=0)
            except Exception as error:  # modules may raise anything, e.g. batch norms with one value
                self.untrained = f"the module does not run in training mode: {error}".splitlines()[0]

    def __call__(self, what: str, plan: fxgrow.Plan | fxgrow.Refusal) -> Compared:
        if isinstance(plan, fxgrow.Refusal):
            return {"what": what, "result": f"refused: {_sentence(plan)}"}
        grown = fxgrow.apply(plan, self.gm)
        errors: dict[bool, float] = {}
        reason = self.untrained
        eval_only = [node for part in plan.every() for node in part.eval_only]
        redrawn = [node for part in plan.every() for node in part.redrawn]
        if eval_only:
            reason = f"the growth is for evaluation mode only: {', '.join(eval_only[:3])} draws for more units"
        for training, known in self.before.items():  # training mode last: it updates running statistics
            if not (training and reason):
                errors[training] = _difference(known, run(grown.train(training), self.probe, seed=0))
        if redrawn:
            return {"what": what, "result": f"random in evaluation mode too: {', '.join(redrawn[:3])}"}
        held = all(error <= max(self.bound, self._rounding(mode, error)) for mode, error in errors.items())
        made: Compared = {"what": what, "result": "same" if held else "differs", "evaluation": errors[False]}
        if True in errors:
            made["training"] = errors[True]
        else:
            made["untrained"] = reason
        return made

    def _rounding(self, training: bool, error: float) -> float:
        """Return the difference that rounding in the original module explains; norms over few, nearly equal values
        amplify it."""
        if error <= self.bound:
            return 0.0
        if training not in self.rounding:
            given = self.probe.given.changed(_moved)
            moved = replace(self.probe, inputs=given.args, kwargs=given.kwargs)
            now = run(twin(self.model, None, training=training), moved, seed=0)
            self.rounding[training] = ROUNDINGS * _difference(self.before[training], now)
        return self.rounding[training]


def _moved(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that differs in the last place."""
    return x + torch.finfo(x.dtype).eps * x.abs().max() if x.is_floating_point() else x


def _difference(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Return the largest relative difference; infinite if nothing can be compared."""
    if before.keys() != after.keys() or all(map(nothing_finite, before.values())):
        return float("inf")
    with torch.no_grad():
        return max(distance(x, after[name]) for name, x in before.items())
