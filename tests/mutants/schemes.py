"""Faults of schemes and of the analysis that they rest on: wrong signs, halves and factors, wrong ideas of axes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest

import fxgrow.insertion.context as around
import fxgrow.planning.build_plan as writing
import fxgrow.proof.unread as unread
from fxgrow.analysis.solver import DimsSolver
from fxgrow.dims.algebra import Algebra
from fxgrow.errors import Kind
from fxgrow.proof.propagate import Propagation
from fxgrow.proof.prove import ProofDomain, Refuted
from fxgrow.rules import RULES
from fxgrow.rules.attention import Attention
from fxgrow.rules.pointwise import Unary
from fxgrow.schemes import SCHEMES, Assignment, Failure, Problem, Scheme, State

from .lies import Plant
from .ways import Planted, both, replaced


@dataclass(frozen=True, slots=True)
class Mistaken:
    """A scheme that takes one state for another."""

    right: Scheme
    states: dict[State, State]

    @property
    def name(self) -> str:
        """As of the right one."""
        return self.right.name

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Wrong states."""
        found = self.right.choose(problem)
        return found if isinstance(found, Failure) else {p: self.states.get(x, x) for p, x in found.items()}


def mistaken(scheme: str, right: State, wrong: State) -> Plant:
    """A scheme takes one state for another."""
    return lambda patch: patch.setitem(SCHEMES, scheme, Mistaken(SCHEMES[scheme], {right: wrong}))


def _blind(old: Callable[..., None], *args: Any) -> None:
    try:
        old(*args)
    except Refuted:
        return


blind = replaced(ProofDomain, "contract", _blind)
"""The proof lets every sum pass."""


def _frozen_but(*kinds: Kind) -> Plant:
    def freeze(old: Callable[..., None], self: Algebra, axis: Any, kind: Kind, text: str) -> None:
        if kind not in kinds:
            old(self, axis, kind, text)

    return replaced(Algebra, "freeze", freeze)


def _read_by_nobody(patch: pytest.MonkeyPatch) -> None:
    """New units need not be read: else outputs would not grow, whatever the analysis says."""
    patch.setattr(unread, "_sets", lambda _: [])


def _uneven(
    old: Callable[..., Any], dims: Any, sizes: Any, assignment: Any, uniform: Collection[Any], seed: int
) -> Any:
    return old(dims, sizes, assignment, (), seed)


def _neighbour(old: Callable[..., Any], self: Propagation[Any], state: Any, axis: Any, number: int) -> Any:
    return old(self, state, axis, (number + 1) % self.grown(axis)[0])


def _turned(old: Callable[..., Any], self: Attention, d: Any, op: Any, axis: Any) -> Any:
    heads, group = op.args["key"].shape[-3], op.args["query"].shape[-3]
    return d.algebra.split(axis, (group // heads, heads))[::-1]


def _pointwise(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(RULES, "fxgrow_zoo::subtract_sum", Unary(odd=True, zero=True))


def _altered(scale: float = 1.0, number: float = 1.0) -> Plant:
    def mix(old: Callable[..., Any], self: ProofDomain, op: Any, *rest: Any) -> Any:
        before = dict(self.scales)
        state = old(self, op, *rest)
        for key in self.scales.keys() - before.keys():
            self.scales[key] *= scale
        if id(op) in self.numbers:
            self.numbers[id(op)] = {name: x * number for name, x in self.numbers[id(op)].items()}
        return state

    return replaced(ProofDomain, "mix", mix)


MISTAKES = (
    ("r2r", State.ODD, State.EVEN, "convolutions"),
    ("r2r", State.EVEN, State.ODD, "convolutions"),
    ("zero", State.ZERO, State.FREE, "convolutions"),
    ("morphism", State.ZERO, State.FREE, "convolutions"),
    ("net2net", State.SPLIT, State.COPY, "convolutions"),
    ("net2net", State.COPY, State.SPLIT, "linear layers"),
    ("mean", State.ZERO, State.FREE, "convolutions"),
    ("mean", State.MEAN, State.FREE, "layer norm"),
)
CHOSEN: Planted = {
    **{
        f"{scheme} takes {wrong.value} for {right.value}": (mistaken(scheme, right, wrong), (subject,))
        for scheme, right, wrong, subject in MISTAKES
    },
    **{
        f"{scheme} takes {wrong.value} for {right.value}, and the proof lets it pass": (
            both(mistaken(scheme, right, wrong), blind),
            (subject,),
        )
        for scheme, right, wrong, subject in MISTAKES
        if wrong is not State.ODD and right is not State.MEAN and wrong is not State.SPLIT
    },
    "copies before a norm are as many as it happens": (replaced(writing, "copy_maps", _uneven), ("layer norm",)),
    "the scale of a norm makes up for twice the width": (_altered(scale=0.5**0.5), ("layer norm", "rms norm")),
    "the scale of a norm is divided, not multiplied": (_altered(scale=2.0), ("layer norm", "rms norm")),
    "the epsilon of a norm is half of what it should be": (_altered(number=0.5), ("layer norm", "rms norm")),
    "the number that a mean divides by is twice what it should be": (_altered(number=2.0), ("mean of units",)),
    "queries, keys and values are taken for each other": (
        replaced(Propagation, "select", _neighbour),
        ("packed attention",),
    ),
    "a head of keys serves every other head of queries": (replaced(Attention, "_heads", _turned), ("grouped queries",)),
    "an axis is taken apart anew by all who ask": (
        replaced(Algebra, "split", lambda old, self, axis, sizes, *_: old(self, axis, sizes)),
        ("groups that are read one by one",),
    ),
    "every function is idempotent": (
        replaced(around, "idempotent", lambda old, op: True),
        ("deeper behind what is not idempotent",),
    ),
    "everything is within bounds": (
        replaced(around, "bounds_of", lambda old, *_: (0.0, 1.0)),
        ("deeper behind what nothing is known of",),
    ),
    "a network that exists is taken for a new block": (
        replaced(DimsSolver, "__init__", lambda old, *args, **how: old(*args, **{**how, "fresh": True})),
        ("group norm of one group",),
    ),
    "outputs may grow": (both(_frozen_but(Kind.OUTPUT), _read_by_nobody), ("linear layers",)),
    "inputs may grow": (_frozen_but(Kind.INPUT), ("joined with the input",)),
    "an operator without a rule is taken for pointwise": (_pointwise, ("an operator without a rule",)),
}
"""By what is wrong: how it is planted, and the subjects that should show it first."""
