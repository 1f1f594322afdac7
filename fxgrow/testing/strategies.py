"""Hypothesis strategies: models that know everything the rules know, and growths to ask of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import fx

from ..errors import FxgrowError, Kind, usage
from ..optional import optional
from ..rewrite import apply
from .fuzzing.choose import Told
from .fuzzing.draw import STEPS, sketch_of
from .fuzzing.growths import Growth, plan_of
from .fuzzing.laws import watch
from .fuzzing.pairs import Subject, subject
from .fuzzing.promises import LawBroken
from .fuzzing.sketch import Sketch
from .fuzzing.wishes import draw_growth, legal, sites_of

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = optional("hypothesis.strategies", extra="testing", what="drawing models and growths")

CHOICES = 16
"""Of one input, one step, one growth: as many as the longest of them takes, whether it takes them or not. They are
bytes of one string, which is one choice for Hypothesis: it leaves a step out by leaving out its string, and what it
changes in one step means the same in the others."""
MOST_INPUTS = 3


def sketches(*, steps: int = STEPS) -> st.SearchStrategy[Sketch]:
    """Models as data. They shrink to few steps, then to small widths.

    Args:
        steps: how many drawn steps at most.
    """
    _whole("steps", steps)
    return st.builds(
        lambda inputs, each, last: sketch_of(map(Told, inputs), map(Told, each), Told(last)),
        st.lists(_block(), min_size=1, max_size=MOST_INPUTS),
        st.lists(_block(), max_size=steps),
        _block(),
    )


def graph_modules(*, steps: int = STEPS, dtype: Literal["float64", "drawn"] = "float64") -> st.SearchStrategy[Subject]:
    """Traced models, each with its sketch, its inputs and the places where it can grow.

    Args:
        steps: how many drawn steps at most.
        dtype: "float64" (default), as the laws need it, with tensors in the order in which they are made; or "drawn":
            of the sketch's own dtype (float64, float32 or bfloat16).
    """
    if dtype not in ("float64", "drawn"):
        raise usage(Kind.BAD_OPTION, f"dtype={dtype!r} is unknown", hint="one of: float64, drawn")
    return sketches(steps=steps).map(partial(subject, double=dtype == "float64"))


def growths(model: fx.GraphModule, *, legal: bool = True) -> st.SearchStrategy[Growth]:
    """What can be asked of a traced model: wider, deeper, or both.

    Args:
        model: from `fxgrow.trace`.
        legal: only growths that fxgrow plans (default); else also some that it is to refuse.
    """
    sites = sites_of(model)
    if not legal:
        return _block().map(lambda numbers: draw_growth(Told(numbers), sites))
    inner = replace(sites, outer=())
    return _block().map(lambda numbers: draw_growth(Told(numbers), inner)).filter(partial(_planned, model))


def sequences(model: fx.GraphModule, *, most: int = 3) -> st.SearchStrategy[list[Growth]]:
    """Legal growths, one after another: each is drawn for the model that those before it make.

    Args:
        model: from `fxgrow.trace`.
        most: how many at most; there is at least one.
    """
    _whole("most", most)
    return st.composite(_in_a_row)(model, most)


def _in_a_row(draw: Any, model: fx.GraphModule, most: int) -> list[Growth]:
    row = list[Growth]()
    for _ in range(draw(st.integers(1, most))):
        row.append(draw(growths(model)))
        try:
            model = apply(plan_of(row[-1], model), model)
        except FxgrowError:  # a fault, which whoever watches the row will see
            break
    return row


def _planned(model: fx.GraphModule, growth: Growth) -> bool:
    return legal(growth, model)


def _block() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=CHOICES, max_size=CHOICES)


def _whole(name: str, number: int) -> None:
    if type(number) is not int or number < 1:
        raise usage(Kind.BAD_OPTION, f"{name} must be a whole number above 0, not {number!r}", hint=f"{name}=3, say")


__all__ = ["LawBroken", "Subject", "graph_modules", "growths", "sequences", "sketches", "watch"]
