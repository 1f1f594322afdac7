"""Pairs of a model and growths: drawn, watched, and watched again from their description."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from ...capture.tracer import trace
from ...errors import FxgrowError
from .build import build
from .choose import Choose
from .draw import draw_sketch
from .growths import Growth, Sites, draw_growth, sites_of
from .laws import Seen, watch
from .promises import LawBroken
from .sketch import Misfit, Sketch


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is traced, in float64, with inputs and what can be asked of it."""

    sketch: Sketch
    model: fx.GraphModule
    inputs: tuple[Tensor, ...]
    sites: Sites


def subject(sketch: Sketch) -> Subject:
    """The model of a sketch, traced and analysed.

    Raises:
        Misfit: the sketch is no model.
        LawBroken: it cannot be traced or analysed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that a norm ignores num_features, and the like
        built = build(sketch, double=True)
        try:
            model = trace(built.model, built.inputs)
            return Subject(sketch, model, built.inputs, sites_of(model))
        except FxgrowError as error:
            raise LawBroken("every model is analysed", str(error)) from error
        except Exception as error:
            raise LawBroken("every model is analysed", f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Breach:
    """A law that was broken: the model, the growths that led there, and what was found."""

    sketch: Sketch
    growths: tuple[Growth, ...]
    law: str
    text: str


def watched(sketch: Sketch, growths: Sequence[Growth]) -> list[Seen]:
    """Grow the model of a sketch step by step and look whether all laws hold.

    Raises:
        LawBroken: one did not.
        Misfit: the sketch is no model.
    """
    one = subject(sketch)
    seen, model = [], one.model
    for growth in growths:
        found, grown = watch(model, one.inputs, growth)
        seen.append(found)
        model = grown or model
    return seen


def broken(sketch: Sketch, growths: Sequence[Growth]) -> LawBroken | None:
    """The law that a pair breaks, if it breaks one."""
    try:
        watched(sketch, growths)
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
    model = one.model
    for k in range(growths):
        growth = draw_growth(choose, one.sites)
        single = k < growths - 2
        try:
            seen, grown = watch(one.model if single else model, one.inputs, growth)
        except LawBroken as error:
            yield sketch, Breach(sketch, (growth,) if single else (*row, growth), error.law, str(error))
            continue
        yield sketch, seen
        if grown is not None and k >= growths - 3:  # the first of the row is the last single one
            row, model = [*row, growth], grown
