"""Hypothesis strategies for models with steps of every kind that the rules know, and for growths of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import fx

from ..errors import FxgrowError, Kind, usage
from ..optional import optional
from ..rewrite import apply
from .fuzzing.choose import CHOICES, Told
from .fuzzing.draw import STEPS, Drawn
from .fuzzing.draw_growths import draw_growth, legal, sites_of
from .fuzzing.growths import Growth, plan_of
from .fuzzing.laws import watch
from .fuzzing.pairs import Subject, subject
from .fuzzing.promises import LawBroken
from .fuzzing.shrink import drawn_blocks
from .fuzzing.sketch import Sketch

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = optional("hypothesis.strategies", extra="testing", what="drawing models and growths")


def sketches(*, steps: int = STEPS) -> st.SearchStrategy[Sketch]:
    """Return a strategy for models as data. They shrink to few steps, then to small widths.

    Args:
        steps: the largest number of drawn steps.
    """
    _whole("steps", steps)
    return drawn_blocks(steps=steps, growths=0).map(Drawn.sketch)


def graph_modules(*, steps: int = STEPS, dtype: Literal["float64", "drawn"] = "float64") -> st.SearchStrategy[Subject]:
    """Return a strategy for traced models, each with its sketch, its inputs and the positions at which it can grow.

    Args:
        steps: the largest number of drawn steps.
        dtype: "float64" (default), as the laws require; or "drawn": the sketch's own dtype (float64, float32 or
            bfloat16).
    """
    if dtype not in ("float64", "drawn"):
        raise usage(Kind.BAD_OPTION, f"dtype={dtype!r} is unknown", hint="one of: float64, drawn")
    return sketches(steps=steps).map(partial(subject, double=dtype == "float64"))


def growths(model: fx.GraphModule, *, legal: bool = True) -> st.SearchStrategy[Growth]:
    """Return a strategy for growths of a traced model: wider, deeper, or both.

    Args:
        model: a model from `fxgrow.trace`.
        legal: whether to draw only growths that fxgrow plans (default), or also some that it must refuse.
    """
    sites = sites_of(model)
    if not legal:
        return _block().map(lambda numbers: draw_growth(Told(numbers), sites))
    inner = replace(sites, outer=())
    return _block().map(lambda numbers: draw_growth(Told(numbers), inner)).filter(partial(_planned, model))


def sequences(model: fx.GraphModule, *, most: int = 3) -> st.SearchStrategy[list[Growth]]:
    """Return a strategy for sequences of legal growths; each is drawn for the model that the previous ones make.

    Args:
        model: a model from `fxgrow.trace`.
        most: the largest number of growths; there is at least one.
    """
    _whole("most", most)
    return st.composite(_in_a_row)(model, most)


def _in_a_row(draw: Any, model: fx.GraphModule, most: int) -> list[Growth]:
    row = list[Growth]()
    for _ in range(draw(st.integers(1, most))):
        row.append(draw(growths(model)))
        try:
            model = apply(plan_of(row[-1], model), model)
        except FxgrowError:  # a defect, which checking the sequence will report
            break
    return row


def _planned(model: fx.GraphModule, growth: Growth) -> bool:
    return legal(growth, model)


def _block() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=CHOICES, max_size=CHOICES)


def _whole(name: str, number: int) -> None:
    if type(number) is not int or number < 1:
        raise usage(Kind.BAD_OPTION, f"{name} must be a positive integer, not {number!r}", hint=f"for example {name}=3")


__all__ = ["LawBroken", "Subject", "graph_modules", "growths", "sequences", "sketches", "watch"]
