"""States: what is known of the new block of an axis, at every value that carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..analysis.analysis import Analysis, OtherMode
from ..analysis.solver import DimsSolver
from ..capture.program.program import Value
from ..dims.axis import Atom
from ..errors import Kind, usage


class State(Enum):
    """An abstract value of a new block, beside the old units.

    Pairing is an involution of the new units; a unit may be its own partner. EVEN and ODD are symmetric and
    antisymmetric under it, so an odd unit without a partner is zero. A copy map sends each new unit to an old one; the
    units that it sends to one old unit, and that unit itself, are a fibre.
    """

    ZERO = "zero"
    EVEN = "even"
    ODD = "odd"
    COPY = "copy"
    """Each new unit equals the old one that the copy map sends it to."""
    SPLIT = "split"
    """The units of a fibre are equal and add up to what the old unit was: the dual of COPY."""
    MEAN = "mean"
    """Each new unit equals the mean of all old ones."""
    FREE = "free"
    """Anything."""
    LOST = "lost"
    """Nothing is known, not even that the old units are what they were: a split that was not passed on linearly. No
    proof goes on from here."""
    SAME = "same"
    """One value for all units, old and new: an operand that lacks the axis."""
    NULL = "null"
    """Zero at all units, old and new: a tensor of zeros made on the spot."""


@dataclass(frozen=True, slots=True)
class Place:
    """One occurrence of a growing atom in an axis of a parameter or buffer.

    Where the axis is a product with a factor that is later taken apart unit by unit, as in `(3 h d)` for queries, keys
    and values, the occurrence has a state for each unit of it, and `index` says which.
    """

    value: int
    axis: int
    occurrence: int
    index: int = -1


SHARE = -1
"""Stands for the axis in the place of a parameter as a whole."""


def share_of(gain: Value) -> Place:
    """Where it is said of a parameter that scales copies whether it is divided by their number (SPLIT), or not."""
    return Place(gain.index, SHARE, 0)


Assignment = Mapping[Place, State]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no states can be found: the kind, the operator at which it shows (a position in the program), a sentence."""

    kind: Kind
    op: int
    text: str
    hint: str = ""
    """A way out, if the scheme knows one."""
    atoms: frozenset[Atom] = frozenset()
    """The growing units that it stops, if others of the growth could go on without them; all if none are named."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a static proof: at this operator this follows."""

    node: str
    op: str
    text: str


@dataclass(frozen=True, slots=True)
class Proof:
    """That a growth preserves the function: every step at which the new units were looked at.

    Some steps hold only with an edit of old entries or numbers, which the proof therefore asks for.
    """

    steps: tuple[Step, ...]
    eval_only: tuple[str, ...] = ()
    """Nodes at which it holds in evaluation mode only."""
    scales: Mapping[int, float] | None = None
    """By index of a parameter: what all its entries are multiplied by (the scale of a norm over a grown axis)."""
    numbers: Mapping[int, Mapping[str, float]] | None = None
    """By identity of an operator: arguments that change (the epsilon of a norm over a grown axis)."""
    uniform: frozenset[Atom] = frozenset()
    """Atoms whose units must be copied equally often."""
    paired: frozenset[str] = frozenset()
    """Nodes of residual joins at which a skip path brings pairs of equal halves."""
    copied: frozenset[str] = frozenset()
    """Nodes of residual joins, or adapters, at which channels that a skip path lacks are copies."""
    read: frozenset[Atom] = frozenset()
    """Atoms over which an operator sums, or of which it takes a statistic."""
    redrawn: tuple[str, ...] = ()
    """Nodes that draw random numbers in evaluation mode too, of which there are more after the growth: the distribution
    of the outputs stays, single draws are others."""
    limited: str = ""
    """Why it does not hold in training mode, in which the model runs other operators; `eval_only` names one."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """The same in other modes, in which the model runs other operators."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A growth as it is in another mode of the model."""

    mode: OtherMode
    sizes: Mapping[Atom, int]
    proof: Proof


@dataclass(frozen=True, slots=True)
class Problem:
    """A growth whose states are to be chosen: the analysis, the axes, and new sizes of the growing atoms."""

    analysis: Analysis
    dims: DimsSolver
    sizes: Mapping[Atom, int]
    others: tuple[OtherMode, ...] = ()
    """Modes in which the model runs other operators."""


def check_noise(noise: object) -> None:
    """Refuse what is no share of a standard deviation.

    Raises:
        UsageError: not a number from 0 to 1.
    """
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
        what = f"noise={noise!r} is no share of the old weights' standard deviation"
        raise usage(Kind.BAD_OPTION, what, hint="a number from 0 to 1, noise=0.01, say")


class Scheme(Protocol):
    """A way to fill new units. It says which states it wants; the proof is the same for all."""

    @property
    def name(self) -> str:
        """What the scheme is called."""

    def choose(self, problem: Problem) -> Assignment | Failure:
        """States for every occurrence of a growing atom in a parameter or buffer, or why there are none."""


_SIGNS = frozenset({State.EVEN, State.ODD, State.SAME})
_COPIES = frozenset({State.COPY, State.SPLIT, State.SAME})
_SHARES = frozenset({State.SPLIT, State.LOST})
"""States in which the old units are not what they were."""


def multiply(states: Sequence[State]) -> State:
    """The state of a product: signs multiply, zero wins, one part of a split is taken once."""
    if State.NULL in states:
        return State.NULL
    kinds = set(states)
    if kinds & _SHARES:
        return State.SPLIT if kinds <= _COPIES and list(states).count(State.SPLIT) == 1 else State.LOST
    if State.ZERO in states:
        return State.ZERO
    if kinds <= {State.SAME}:
        return State.SAME
    if kinds <= _SIGNS:
        return State.ODD if list(states).count(State.ODD) % 2 else State.EVEN
    if kinds <= _COPIES:
        return State.COPY
    if kinds <= {State.MEAN, State.SAME} and list(states).count(State.MEAN) == 1:
        return State.MEAN
    return State.FREE


def add(states: Sequence[State]) -> State:
    """The state of a sum, and of blocks run together: zero is neutral to halves; copies and means must be so in all."""
    some = [x for x in states if x is not State.NULL]
    kinds = set(some)
    if len(kinds) <= 1:
        return some[0] if some else State.NULL
    if kinds & _SHARES:
        return State.LOST
    if kinds <= {State.EVEN, State.SAME, State.ZERO}:
        return State.EVEN
    if kinds <= {State.ODD, State.ZERO}:
        return State.ODD
    for state in (State.COPY, State.MEAN):
        if kinds == {state, State.SAME}:
            return state
    return State.FREE


def through(
    states: Sequence[State], *, odd: bool, zero: bool, linear: bool = False, homogeneous: bool = False
) -> State:
    """The state after a function applied unit by unit; `odd`: f(-x) = -f(x), `zero`: f(0) = 0, `linear`: f(cx) = c f(x)
    and f(x + y) = f(x) + f(y), `homogeneous`: f(cx, cy) = c f(x, y) for c > 0."""
    kinds = set(states)
    if kinds & _SHARES:
        scales = homogeneous or (linear and len(states) == 1)
        return State.SPLIT if scales and kinds <= {State.SPLIT, State.NULL} else State.LOST
    if kinds <= {State.NULL, State.SAME}:
        return State.NULL if kinds == {State.NULL} and zero else State.SAME
    if kinds <= {State.ZERO, State.NULL} and zero:
        return State.ZERO
    if kinds <= {State.EVEN, State.ZERO, State.NULL, State.SAME}:
        return State.EVEN
    if kinds <= {State.COPY, State.SAME, State.NULL}:
        return State.COPY
    if len(states) == 1 and states[0] is State.ODD and odd:
        return State.ODD
    if len(states) == 1 and linear:
        return states[0]
    return State.FREE
