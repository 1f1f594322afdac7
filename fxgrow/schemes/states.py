"""States: what is known of the new block of an axis, at every value that carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..analysis import Analysis
from ..dims.axis import Atom
from ..dims.solver import DimsSolver
from ..errors import Kind


class State(Enum):
    """An abstract value of a new block. Pairing is an involution of its units; a unit may be its own partner.

    EVEN and ODD are symmetric and antisymmetric under it, so an odd unit without a partner is zero.
    """

    ZERO = "zero"
    EVEN = "even"
    ODD = "odd"
    COPY = "copy"
    MEAN = "mean"
    FREE = "free"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """One occurrence of a growing atom in an axis of a parameter or buffer."""

    value: int
    axis: int
    occurrence: int


Assignment = Mapping[Place, State]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no states can be found: the kind, the operator at which it shows (a position in the program), a sentence."""

    kind: Kind
    op: int
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a static proof: at this operator this follows."""

    node: str
    op: str
    text: str


@dataclass(frozen=True, slots=True)
class Proof:
    """That a growth preserves the function: every step at which the new units were looked at."""

    steps: tuple[Step, ...]
    eval_only: tuple[str, ...] = ()
    """Nodes at which it holds in evaluation mode only."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A growth whose states are to be chosen: the analysis, the axes, and old and new sizes of the growing atoms."""

    analysis: Analysis
    dims: DimsSolver
    sizes: Mapping[Atom, tuple[int, int]]


class Scheme(Protocol):
    """A way to fill new units. It says which states it wants; the proof is the same for all."""

    @property
    def name(self) -> str:
        """What the scheme is called."""

    def choose(self, problem: Problem) -> Assignment | Failure:
        """States for every occurrence of a growing atom in a parameter or buffer, or why there are none."""


def multiply(states: Sequence[State]) -> State:
    """The state of a product: signs multiply, and zero wins."""
    if State.ZERO in states:
        return State.ZERO
    if all(x in (State.EVEN, State.ODD) for x in states):
        return State.ODD if list(states).count(State.ODD) % 2 else State.EVEN
    return State.UNKNOWN


def add(states: Sequence[State]) -> State:
    """The state of a sum: zero is neutral to halves; everything else must be alike."""
    some = [x for x in states if x is not State.ZERO]
    if not some:
        return State.ZERO
    if all(x is some[0] for x in some) and some[0] in (State.EVEN, State.ODD):
        return some[0]
    if len(states) == len(some) and all(x is some[0] for x in some) and some[0] in (State.COPY, State.MEAN):
        return some[0]
    return State.UNKNOWN
