"""Draws pairs of a model and growths, checks the laws on them, and repeats this from their description."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx, nn

from ...capture.inputs.call import Call, as_call
from ...capture.traced_model.other_modes import modes_of
from ...capture.tracing.trace import trace
from ...errors import FxgrowError
from ..fidelity import FidelityBroken, check_fidelity, second_call
from .build import Built, build
from .choose import Choose
from .draw import draw_sketch
from .draw_growths import Sites, draw_growth, sites_of
from .forced import force
from .further import look_further
from .growths import Growth
from .laws import Seen, watch
from .promises import LawBroken
from .running import Inputs, Stand
from .sketch import Misfit, Sketch

FIDELITY = "a trace runs what its module runs"
"""The law for every model."""
FURTHER = 10
"""Percentage of pairs on which the laws that take longer are checked."""
FORCING = 50
"""Percentage of function-changing refusals that are forced."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A traced model with its inputs, and the positions at which it can grow."""

    sketch: Sketch
    model: fx.GraphModule
    inputs: Inputs
    sites: Sites
    module: nn.Module
    """The module that was traced: the reference for all models grown from the trace."""
    second: Inputs | None
    """Inputs of other sizes; None if the module accepts none."""

    def stand(self) -> Stand:
        """Return a `Stand` that runs the module in the modes that the trace covers."""
        return Stand(self.module, modes=modes_of(self.model))


def subject(sketch: Sketch, *, double: bool = True, fidelity: bool = True) -> Subject:
    """Build, trace and analyse the model of a sketch.

    Args:
        sketch: the sketch.
        double: whether to use float64 instead of the sketch's dtype.
        fidelity: whether to check that the trace runs what the module runs.

    Raises:
        Misfit: the steps of the sketch do not fit together.
        LawBroken: the model cannot be traced or analysed, or the trace differs from the module.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # e.g. torch's warning that a norm ignores num_features
        built = build(sketch, double=double)
        try:
            model = trace(built.model, built.inputs)
            second = _second(built, model)
            if fidelity:
                check_fidelity(built.model, model, built.inputs, other=second)
            return Subject(sketch, model, built.inputs, sites_of(model), built.model, second)
        except FidelityBroken as error:
            raise LawBroken(FIDELITY, str(error)) from error
        except FxgrowError as error:
            raise LawBroken("every model is analysed", str(error)) from error
        except Exception as error:
            raise LawBroken("every model is analysed", f"{type(error).__name__}: {error}") from error


def _second(built: Built, traced: fx.GraphModule) -> Call | None:
    call = as_call(built.inputs)
    assert call is not None, "a model has inputs"
    return second_call(built.model, call, training="eval" not in modes_of(traced), traced=traced)


@dataclass(frozen=True, slots=True)
class Breach:
    """A broken law: the model, the growths that led to it, and the message."""

    sketch: Sketch
    growths: tuple[Growth, ...]
    law: str
    text: str


@contextmanager
def nothing_else() -> Iterator[None]:
    """Turn any other exception into a broken law, so that a run continues and saves it.

    Raises:
        LawBroken: instead of any other exception.
    """
    try:
        yield
    except (LawBroken, Misfit):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}, in {last.name}"
        raise LawBroken("nothing else is raised", f"{type(error).__name__}: {error} ({where})") from error


def watched(sketch: Sketch, growths: Sequence[Growth], *, further: bool = True, fidelity: bool = True) -> list[Seen]:
    """Grow the model of a sketch step by step and check all laws.

    Args:
        sketch: the sketch of the model.
        growths: the growths, one after the other.
        further: whether to check also the laws that take longer, for the first growth, and to force it if it is
        refused. fidelity: whether to check also the law for every model.

    Raises:
        LawBroken: a law does not hold.
        Misfit: the steps of the sketch do not fit together.
    """
    one = subject(sketch, fidelity=fidelity)
    seen, model = [], one.model
    for k, growth in enumerate(growths):
        with nothing_else():
            found, grown = watch(model, one.inputs, growth, stand=None if k else one.stand(), second=one.second)
            if k == 0 and further:
                look_further(sketch, model, one.inputs, found)
                force(model, one.inputs, growth, found.refusal, Stand(model))
        seen.append(found)
        model = grown or model
    return seen


def broken(
    sketch: Sketch, growths: Sequence[Growth], *, further: bool = False, fidelity: bool = True
) -> LawBroken | None:
    """Return the error of a law that a pair breaks, else None; laws that take longer are checked only with
    `further`."""
    try:
        watched(sketch, growths, further=further, fidelity=fidelity)
    except LawBroken as error:
        return error
    except Misfit:
        return None
    return None


def pairs(choose: Choose, *, growths: int) -> Iterator[tuple[Sketch, Seen | Breach]]:
    """Draw one model with several growths: most of them of the model itself, the last ones one after the other."""
    sketch = draw_sketch(choose)
    try:
        one = subject(sketch)
    except LawBroken as error:
        yield sketch, Breach(sketch, (), error.law, str(error))
        return
    row: list[Growth] = []
    model, stand = one.model, one.stand()
    for k in range(growths):
        growth = draw_growth(choose, one.sites)
        single = k < growths - 2
        try:
            with nothing_else():
                start, known = (one.model, stand) if single else (model, None)
                seen, grown = watch(start, one.inputs, growth, stand=known, second=one.second)
                if single:
                    seen = _further(choose, one, seen, stand)
        except LawBroken as error:
            yield sketch, Breach(sketch, (growth,) if single else (*row, growth), error.law, str(error))
            continue
        yield sketch, seen
        if grown is not None and k >= growths - 3:  # the sequence starts with the last single growth
            row, model = [*row, growth], grown


def _further(choose: Choose, one: Subject, seen: Seen, stand: Stand) -> Seen:
    """Check the laws that take longer on some pairs, and force some refusals."""
    if choose.seldom(FURTHER):
        look_further(one.sketch, one.model, one.inputs, seen)
        seen = replace(seen, further=True)
    if seen.refusal is not None and choose.seldom(FORCING):
        forced = force(one.model, one.inputs, seen.growth, seen.refusal, stand)
        where = seen.told.where.partition(",")[0] if seen.told is not None else ""
        if forced is not None:
            label = f"at {where}, by {seen.growth.scheme}: {forced.harmless}" if forced.harmless else ""
            seen = replace(seen, forced=forced.tried > 0, harmless=label)
    return seen
