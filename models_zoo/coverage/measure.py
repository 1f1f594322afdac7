"""What is measured of one model: is it captured, which of its axes grow, and do the grown networks compute the same.

The yardstick of every comparison is the original module, not its trace: in float64 where it runs in that, else in
float32; in evaluation mode, and in training mode where the trace stands for that and the growth keeps it.
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
"""Models with fewer parameters are grown and compared; of larger ones the growths are planned and proved."""
SAMPLE = 5
"""So many axes that `inspect` offers are drawn and planned alone, each by itself."""
TRIES = 30
"""So many places are drawn for an insertion before it is given up."""
FLOAT32_BOUND = 1e-4
"""Largest relative difference in float32, in which models are compared that do not run in float64."""
ROUNDINGS = 10.0
"""A difference below so many times what a change of the inputs in their last place makes is rounding."""
LEFT_OUT = "left out: "
WHOLE = 2.0
"""How much wider the whole network becomes."""


class Stopped(TypedDict):
    """Something that does not grow, and why."""

    name: str
    width: int
    code: str
    kind: str
    why: str


class Compared(TypedDict, total=False):
    """One growth, carried out and compared with the original module: "same", "differs", or why there is none."""

    what: str
    result: str
    evaluation: float
    """Largest relative difference."""
    training: float
    untrained: str
    """Why training mode was not compared."""


class Measured(TypedDict, total=False):
    """What was found of one model. What is not known is left out."""

    outcome: str
    """"captured" or "not captured"; "killed", "too slow" or "error" if it could not be measured to the end."""
    why: str
    during: str
    """What was being done last."""
    parameters: int
    modes: list[str]
    """The one mode that the trace stands for; empty for both."""
    fixed: int
    """Axes that inputs or outputs fix, which are no inner ones."""
    growing: list[str]
    stopped: list[Stopped]
    undecided: list[str]
    """What `inspect` and `plan_grow` do not agree on, and axes that are offered and do not grow alone."""
    compared: list[Compared]
    places: dict[str, int]
    """Refusals to insert a block at the places that were drawn, by kind."""
    seconds: dict[str, float]


Say = Callable[[Measured], None]
"""Is told what is known so far, so that it is kept if the process ends."""


def measure(subject: Subject, seed: int, say: Say = lambda _: None) -> Measured:
    """Measure one model.

    Args:
        subject: the model.
        seed: what is grown and where a block goes is drawn by this and the model's name.
        say: is told what is known so far before each step.
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
                gc.collect()  # graph modules are cycles
                say(found)
    return found


class _Clock:
    """Notes what is being done, and how long it took in processor time."""

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
    """Whether a model runs in float64; one that makes tensors of float32 may not."""
    try:
        with torch.no_grad():
            copy.deepcopy(model).double()(*_double(inputs))
    except RuntimeError:  # dtypes that do not fit
        return False
    return True


def _double(thing: Any) -> Any:
    """Inputs in float64."""
    return Call(tuple(thing)).changed(lambda x: x.double() if x.is_floating_point() else x).args


def _sentence(refusal: fxgrow.Refusal) -> str:
    """The first one of a refusal, and where."""
    what = re.split(r"\. (?=[A-Z])", " ".join(refusal.what.split()))[0]
    return f"{what} ({' '.join(refusal.where.split())})" if refusal.where else what


def _stopped(axis: Inner) -> Stopped:
    why = axis.refusal
    assert why is not None
    what = why.what.partition(": ")[2] or why.what
    return {"name": axis.name, "width": axis.width, "code": why.kind.value, "kind": why.kind.name, "why": what}


def _decided(gm: fx.GraphModule, inspected: dict[str, fxgrow.Refusal | None]) -> Iterator[Inner]:
    """Each axis with its refusal. What `inspect` says of a layer answers for its axis, unless it has two, or may grow
    to a smaller width than the one that `inspect` looks at."""
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
    """Layers that one of `inspect` and `plan_grow` grows and the other does not."""
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
    """Axes that `inspect` offers and `widen` refuses."""
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
    """One axis and one insertion that are drawn, and the whole network."""
    able = [axis for axis in axes if axis.refusal is None]
    if able:
        axis = draw.choice(able)
        yield f"widen {axis.name}", planned(gm, axis.ask)
    yield _insertion(gm, draw, places)
    if able or not isinstance(whole, fxgrow.Refusal):
        yield f"grow everything by {WHOLE}", whole


def _insertion(gm: fx.GraphModule, draw: random.Random, places: dict[str, int]) -> Growth:
    """A block behind the first of the nodes, in the order drawn, that takes one."""
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
            except Exception as error:  # whatever a module raises: batch norms want more than one value
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
        for training, known in self.before.items():  # training mode last: it moves statistics
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
        """What the module's own rounding explains: norms over few, nearly equal numbers multiply it."""
        if error <= self.bound:
            return 0.0
        if training not in self.rounding:
            given = self.probe.given.changed(_moved)
            moved = replace(self.probe, inputs=given.args, kwargs=given.kwargs)
            now = run(twin(self.model, None, training=training), moved, seed=0)
            self.rounding[training] = ROUNDINGS * _difference(self.before[training], now)
        return self.rounding[training]


def _moved(x: torch.Tensor) -> torch.Tensor:
    """Numbers in the last place beside these."""
    return x + torch.finfo(x.dtype).eps * x.abs().max() if x.is_floating_point() else x


def _difference(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Largest relative difference; infinite if there is nothing that could be compared."""
    if before.keys() != after.keys() or all(map(nothing_finite, before.values())):
        return float("inf")
    with torch.no_grad():
        return max(distance(x, after[name]) for name, x in before.items())
