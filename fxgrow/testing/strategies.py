"""Hypothesis strategies: models that know everything the rules know, and growths to ask of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import fx

from ..optional import optional
from .fuzzing.draw import STEPS, draw_sketch
from .fuzzing.growths import Growth, draw_growth, sites_of
from .fuzzing.laws import watch
from .fuzzing.pairs import Subject, subject
from .fuzzing.promises import LawBroken
from .fuzzing.sketch import Sketch

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = optional("hypothesis.strategies", extra="testing", what="drawing models and growths")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices that Hypothesis makes, and shrinks."""

    draw: Callable[..., Any]

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.draw(st.integers(low, high)))

    def pick(self, some: Sequence[T]) -> T:
        """One of several."""
        return some[self.integer(0, len(some) - 1)]

    def seldom(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.integer(0, 99) >= 100 - percent


def sketches(*, steps: int = STEPS) -> st.SearchStrategy[Sketch]:
    """Models as data. They shrink to few steps, then to small widths.

    Args:
        steps: how many drawn steps at most.
    """
    return st.composite(lambda draw: draw_sketch(Drawn(draw), steps=steps))()


def graph_modules(*, steps: int = STEPS) -> st.SearchStrategy[Subject]:
    """Traced models in float64, each with its sketch, its inputs and the places where it can grow.

    Args:
        steps: how many drawn steps at most.
    """
    return sketches(steps=steps).map(subject)


def growths(model: fx.GraphModule) -> st.SearchStrategy[Growth]:
    """What can be asked of a traced model: legal growths, and some that are to be refused.

    Args:
        model: from `fxgrow.trace`.
    """
    sites = sites_of(model)
    return st.composite(lambda draw: draw_growth(Drawn(draw), sites))()


__all__ = ["Drawn", "LawBroken", "Subject", "graph_modules", "growths", "sketches", "watch"]
