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
from .choose import Choose, Seeded, Told
from .draw import Drawn, draw_blocks
from .draw_growths import Sites, draw_growth, placed, sites_of
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
ROW = 3
"""Number of growths in a row: the last ones that are drawn for a model."""


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
    drawn: Drawn
    """The bytes that the model and the growths were drawn from."""


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
    return _watched(subject(sketch, fidelity=fidelity), growths, further=further)


def _watched(one: Subject, growths: Sequence[Growth], *, further: bool) -> list[Seen]:
    seen, model = [], one.model
    for k, growth in enumerate(growths):
        with nothing_else():
            found, grown = watch(model, one.inputs, growth, stand=None if k else one.stand(), second=one.second)
            if k == 0 and further:
                look_further(one.sketch, model, one.inputs, found)
                force(model, one.inputs, growth, found.refusal, Stand(model))
        seen.append(found)
        model = grown or model
    return seen


def redrawn(drawn: Drawn, like: Breach, *, further: bool = False) -> Breach | None:
    """Return the breach of the same law by the pair that is drawn from other bytes, None if the law holds.

    Args:
        drawn: the bytes.
        like: a breach of the law. The growth is also tried at the nodes whose names differ from those in this breach
            only by their numbers, because these change when steps are left out.
        further: whether to check also the laws that take longer.
    """
    sketch, known = drawn.sketch(), like.law == FIDELITY
    try:
        one = subject(sketch, fidelity=known)
    except LawBroken as error:
        return Breach(sketch, (), error.law, str(error), drawn) if error.law == like.law else None
    except Misfit:
        return None
    for growths in placed(growths_of(drawn, one.sites), like.growths, one.sites):
        try:
            _watched(one, growths, further=further)
        except LawBroken as error:
            if error.law == like.law:
                return Breach(sketch, growths, error.law, str(error), drawn)
    return None


def pairs(seeded: Seeded, *, growths: int) -> Iterator[tuple[Sketch, Seen | Breach]]:
    """Yield a drawn model with several drawn growths: most of the model itself, the last `ROW` one after the other."""
    drawn = draw_blocks(seeded)
    sketch = drawn.sketch()
    try:
        one = subject(sketch)
    except LawBroken as error:
        yield sketch, Breach(sketch, (), error.law, str(error), drawn)
        return
    row: list[bytes] = []
    model, stand = one.model, one.stand()
    for k in range(growths):
        block = seeded.block()
        growth = draw_growth(Told(block), one.sites)
        single = k <= growths - ROW
        try:
            with nothing_else():
                start, known = (one.model, stand) if single else (model, None)
                seen, grown = watch(start, one.inputs, growth, stand=known, second=one.second)
                if single:
                    seen = _further(seeded, one, seen, stand)
        except LawBroken as error:
            blocks = replace(drawn, growths=(block,) if single else (*row, block))
            yield sketch, Breach(sketch, growths_of(blocks, one.sites), error.law, str(error), blocks)
            continue
        yield sketch, seen
        if grown is not None and k >= growths - ROW:  # the first of the row is the last single one
            row, model = [*row, block], grown


def growths_of(drawn: Drawn, sites: Sites) -> tuple[Growth, ...]:
    """Return the growths that are drawn for a model."""
    return tuple(draw_growth(Told(block), sites) for block in drawn.growths)


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
