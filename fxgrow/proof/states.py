"""States of new units, their arithmetic, and the data of growth problems, schemes and proofs."""

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
    """What is known of the new units of an atom in one value; except for SPLIT and LOST, old units are unchanged.

    New units come in pairs; a unit without a partner is its own partner. A copy map assigns an old unit to each new
    one; an old unit and all its copies are a fibre.
    """

    ZERO = "zero"
    """Each new unit is zero."""
    EVEN = "even"
    """The two units of a pair are equal."""
    ODD = "odd"
    """The two units of a pair are opposite: x and -x. A unit without a partner is zero."""
    COPY = "copy"
    """Each new unit equals the old one of which it is a copy."""
    SPLIT = "split"
    """The units of a fibre are equal, and their sum is the value that the old unit had: the dual of COPY."""
    MEAN = "mean"
    """Each new unit equals the mean of all old ones."""
    FREE = "free"
    """New units may have any values."""
    LOST = "lost"
    """Nothing is known, not even that old units are unchanged: a split to which a function that is not linear was
    applied. The proof fails."""
    SAME = "same"
    """All units, old and new, have one value: an operand without the axis."""
    NULL = "null"
    """All units, old and new, are zero: a tensor that torch.zeros creates."""


@dataclass(frozen=True, slots=True)
class Place:
    """One occurrence of a growing atom in an axis of a parameter or buffer, for which a scheme chooses a state.

    If the axis is a product with a factor whose units are later selected by index, as the 3 in `(3 h d)` for queries,
    keys and values, the occurrence has a state for each unit of that factor, whose number is `index`.
    """

    value: int
    """Index of the value in the program."""
    axis: int
    """Dimension of the value."""
    occurrence: int
    """Number of the occurrence in the axis, from the left."""
    index: int = -1


SHARE = -1
"""Used as the axis of a place that is a parameter as a whole."""


def share_of(gain: Value) -> Place:
    """Return the place of a parameter that scales copies, whose state is SPLIT if it is divided by their number."""
    return Place(gain.index, SHARE, 0)


Assignment = Mapping[Place, State]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no states were found, or why a proof fails."""

    kind: Kind
    op: int
    """Position in the program of the operator at which it fails."""
    text: str
    """The reason, as a sentence."""
    hint: str = ""
    """What to do instead, if the scheme knows."""
    atoms: frozenset[Atom] = frozenset()
    """The growing atoms that cannot grow, if others could grow without them; empty if it concerns all of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a static proof: a conclusion at one operator."""

    node: str
    op: str
    text: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that a growth preserves the function, and the edits of old entries and numbers that it requires."""

    steps: tuple[Step, ...]
    """The conclusions at all operators that the growth affects."""
    eval_only: tuple[str, ...] = ()
    """Nodes at which the function is preserved in evaluation mode only."""
    scales: Mapping[int, float] | None = None
    """Required factors of all entries of a parameter, by its index (the scale of a norm over a grown axis)."""
    numbers: Mapping[int, Mapping[str, float]] | None = None
    """Required changes of arguments, by identity of the operator (the epsilon of a norm over a grown axis)."""
    uniform: frozenset[Atom] = frozenset()
    """Atoms whose units must be copied equally often."""
    paired: frozenset[str] = frozenset()
    """Nodes of residual joins at which new units of a skip path are pairs of equal units."""
    copied: frozenset[str] = frozenset()
    """Nodes of residual joins, or adapters, at which channels that are added to a skip path are copies."""
    read: frozenset[Atom] = frozenset()
    """Atoms over which an operator sums, or computes a statistic."""
    redrawn: tuple[str, ...] = ()
    """Nodes that draw random numbers in evaluation mode too, and draw more of them after the growth: the outputs keep
    their distribution, but single draws differ."""
    limited: str = ""
    """Why the function is not preserved in training mode, if the model runs other operators in it; `eval_only` names
    one of them."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """The proofs for other modes, in which the model runs other operators."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A growth and its proof in another mode, in which the model runs other operators."""

    mode: OtherMode
    sizes: Mapping[Atom, int]
    proof: Proof


@dataclass(frozen=True, slots=True)
class Problem:
    """A growth for which a scheme chooses states."""

    analysis: Analysis
    """The analysis of the model."""
    dims: DimsSolver
    """The axes of all values."""
    sizes: Mapping[Atom, int]
    """New sizes of the growing atoms."""
    others: tuple[OtherMode, ...] = ()
    """Modes in which the model runs other operators."""


def check_noise(noise: object) -> None:
    """Check that `noise`, a share of a standard deviation, is valid.

    Raises:
        UsageError: it is not a number from 0 to 1.
    """
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
        what = f"noise={noise!r} is not a share of the old weights' standard deviation"
        raise usage(Kind.BAD_OPTION, what, hint="a number from 0 to 1, such as noise=0.01")


class Scheme(Protocol):
    """A way to initialise new units. It chooses their states; the growth is then proved independently of the scheme."""

    @property
    def name(self) -> str:
        """The name of the scheme."""

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Return a state for every place of the growing atoms in parameters and buffers, or why there is none."""


_SIGNS = frozenset({State.EVEN, State.ODD, State.SAME})
_COPIES = frozenset({State.COPY, State.SPLIT, State.SAME})
_SHARES = frozenset({State.SPLIT, State.LOST})
"""States in which the old units change."""


def multiply(states: Sequence[State]) -> State:
    """Return the state of a product: signs multiply, zero times any state is zero, and at most one factor is split."""
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
    """Return the state of a sum, or of merged occurrences. Zeros do not change pairs; a sum of copies (or means) and of
    operands that are the same for all units is a copy (or mean)."""
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
    """Return the state after a function that is applied to every unit separately.

    Args:
        states: of the operands of the function.
        odd: f(-x) = -f(x).
        zero: f(0) = 0.
        linear: f(cx) = c f(x) and f(x + y) = f(x) + f(y).
        homogeneous: f(cx, cy) = c f(x, y) for c > 0.
    """
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
