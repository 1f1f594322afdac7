"""Pairs of a model and growths: drawn, watched, and watched again from their description."""

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
from .forced import force
from .further import look_further
from .growths import Growth
from .laws import Seen, watch
from .promises import LawBroken
from .running import Inputs, Stand
from .sketch import Misfit, Sketch
from .wishes import Sites, draw_growth, sites_of

FIDELITY = "a trace runs what its module runs"
"""The law of every model."""
FURTHER = 10
"""On so many of a hundred pairs the laws that take longer are watched, too."""
FORCING = 50
"""Of a hundred refusals that say that the function would change, so many are forced."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is traced, with inputs and what can be asked of it."""

    sketch: Sketch
    model: fx.GraphModule
    inputs: Inputs
    sites: Sites
    module: nn.Module
    """Of which the model is a trace: the yardstick of all that is grown from it."""
    second: Inputs | None
    """Inputs of other sizes; None if the module takes none."""

    def stand(self) -> Stand:
        """Where the module runs, in the modes that are claimed."""
        return Stand(self.module, modes=modes_of(self.model))


def subject(sketch: Sketch, *, double: bool = True, fidelity: bool = True) -> Subject:
    """The model of a sketch, traced and analysed.

    Args:
        sketch: what to build.
        double: in float64, whatever the sketch says.
        fidelity: also look whether the trace runs what the module runs.

    Raises:
        Misfit: the sketch is no model.
        LawBroken: it cannot be traced or analysed, or the trace runs something else than the module.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that a norm ignores num_features, and the like
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
    """A law that was broken: the model, the growths that led there, and what was found."""

    sketch: Sketch
    growths: tuple[Growth, ...]
    law: str
    text: str


@contextmanager
def nothing_else() -> Iterator[None]:
    """Whatever else is raised is a broken law, too, so that a run goes on and saves it.

    Raises:
        LawBroken: in place of any other error.
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
    """Grow the model of a sketch step by step and look whether all laws hold.

    Args:
        sketch: of the model.
        growths: one behind the other.
        further: also the laws that take longer, on the first of them; it is forced if it is refused.
        fidelity: also the law of every model.

    Raises:
        LawBroken: one did not.
        Misfit: the sketch is no model.
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
    """The law that a pair breaks, if it breaks one; of those that take longer only if asked."""
    try:
        watched(sketch, growths, further=further, fidelity=fidelity)
    except LawBroken as error:
        return error
    except Misfit:
        return None
    return None


def pairs(choose: Choose, *, growths: int) -> Iterator[tuple[Sketch, Seen | Breach]]:
    """One drawn model with several drawn growths: most of them of the model itself, the last ones in a row."""
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
        if grown is not None and k >= growths - 3:  # the first of the row is the last single one
            row, model = [*row, growth], grown


def _further(choose: Choose, one: Subject, seen: Seen, stand: Stand) -> Seen:
    """Watch the laws that take longer on some pairs, and force some of the refusals."""
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
