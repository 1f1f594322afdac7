"""What a rule is, and what it may ask: one sentence per operator drives analysis, growth and proof.

A rule answers three questions about one operator call:

* `dims`: where does each axis go? It writes the axes of the outputs, uniting, splitting and freezing on the way.
* `states`: what becomes of the new units? It writes the states of the outputs from those of the inputs.
* `resized`: which arguments are sizes, and what are they after a growth? Everything else stays as it is: a number
  computed from a growing size but used as an operand is pinned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from ..capture.program.program import Op, Value
from ..capture.recording.composites import WHOLE
from ..dims.algebra import Algebra
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .domains import Domain
from .mixing import Mixing

State = Any
"""An element of the domain that a `StateContext` computes in; rules hand it on and never look inside."""
AxisStates = list[list[State]]
"""For each axis of a value, one state for each occurrence of a growing atom in it."""


class AxisContext(Protocol):
    """The analysis, as a rule sees it."""

    algebra: Algebra
    adapt_skips: bool
    """Whether residual joins keep their operands apart (skip="reshape")."""
    fresh: bool
    """Whether the program is a new block, in which no unit has a value yet that must stay."""

    def of(self, value: Value) -> list[Axis]:
        """The axes of a value."""

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Say what the axes of an output are."""

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """No growth for this axis, and why."""

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Two axes are one; returns it."""

    def contract(self, op: Op, axis: Axis) -> None:
        """The operator sums over this axis: its readers end here."""

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """The operator gives birth to this axis of its output, from a weight."""

    def read(self, value: Value) -> bool:
        """Whether an operator takes a value, or the model returns it."""

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """Note that two volumes meet by addition; True if the axes of the skip operand have been dealt with."""


class StateContext(Protocol):
    """The propagation of states, as a rule sees it."""

    algebra: Algebra
    same: State
    """The state of something that is the same for all units, old and new."""
    zero: State
    """The state of something that vanishes at every new unit."""
    null: State
    """The state of something that vanishes at all units, old and new."""

    def axes(self, value: Value) -> list[Axis]:
        """The axes of a value."""

    def count(self, axis: Axis) -> int:
        """How many occurrences of growing atoms an axis has."""

    def of(self, value: Value) -> AxisStates:
        """The states of a value."""

    def set(self, value: Value, marks: AxisStates) -> None:
        """Say what the states of an output are."""

    def broadcast_states(self, row: Sequence[State], count: int) -> list[State]:
        """States of an axis that is written with another number of occurrences."""

    def add(self, op: Op, states: Iterable[State]) -> State:
        """The state of a sum."""

    def mul(self, op: Op, states: Iterable[State]) -> State:
        """The state of a product."""

    def grown(self, axis: Axis) -> tuple[int, int]:
        """The size of an axis before and after."""

    def select(self, state: State, axis: Axis, number: int) -> State:
        """A state when one unit is taken from an axis that states may be told apart by."""

    def piece(self, state: State, axis: Axis, start: int, taken: Axis) -> State:
        """As `select`, of units from `start` on."""

    def forget_index(self, state: State, axes: Sequence[Axis]) -> State:
        """A state that these axes no longer tell apart: their units are mixed, moved or chosen by number."""

    def by_index(self, op: Op, axis: Axis, states: Sequence[State]) -> State:
        """One state for each unit of another axis of the result."""

    def merge_axes(self, axes: Sequence[Axis], rows: AxisStates) -> list[State]:
        """The states of axes that become one."""

    def split_axes(self, row: list[State], axes: Sequence[Axis]) -> AxisStates | None:
        """The states of axes into which one is split, if it held more occurrences than they do."""

    def map_units(
        self, op: Op, states: Iterable[State], *, odd: bool, zero: bool, linear: bool = False, homogeneous: bool = False
    ) -> State:
        """The state of a function applied unit by unit.

        `odd`: f(-x) = -f(x), `zero`: f(0) = 0, `linear`: it is a linear map of each unit's own slice, `homogeneous`:
        f(cx, cy) = c f(x, y) for c > 0.
        """

    def require(self, op: Op, state: State, *, even: bool, why: str) -> State:
        """Demand that a state is not zero, and if `even` the same for twins and copies, e.g. a batch norm's scale."""

    def within(self, op: Op, state: State, value: Value, domain: Domain) -> State:
        """Demand that new units of an operand are in a domain, as the old ones are."""

    def adapt(self, op: Op, state: State) -> None:
        """Note that a skip path with this new block enters through an adapter, which cancels it or leaves it out."""

    def missing(self, op: Op, state: State) -> State:
        """The state of channels that a skip path lacks, as an adapter makes them for a volume in this state."""

    def mix(self, op: Op, state: State, mixing: Mixing) -> State:
        """The state after a normalisation over all units of the axis, or what a statistic of them asks for."""

    def centre(self, op: Op, state: State) -> State:
        """The state after the mean over the axis is taken off."""

    def maker(self, value: Value) -> Op | None:
        """The operator that a value comes from, if it sees the growth."""

    def gain(self, value: Value) -> Value | None:
        """The parameter that a value is a multiple of, if nothing else is made of it."""

    def kept_apart(self, op: Op) -> tuple[Value, int] | None:
        """The skip operand of a join, and the axis along which an adapter stands between it and the result."""

    def contract(self, op: Op, factors: Sequence[State]) -> None:
        """Demand that a sum over the new units vanishes."""

    def merge(self, op: Op, states: Sequence[State]) -> State:
        """The state of occurrences that can no longer be told apart."""

    def keep(self, op: Op, before: State, after: State) -> None:
        """Demand that a tensor of the model is left in the state in which it was found."""

    def drawn(self, op: Op, state: State, why: str) -> State:
        """The state after a product with numbers that are drawn at random for every unit, in both modes."""

    def only_eval(self, op: Op, why: str) -> None:
        """Note that this step holds in evaluation mode only."""


class SizeContext(Protocol):
    """A growth, as a rule sees it: the new sizes of everything."""

    algebra: Algebra

    def size(self, axis: Axis) -> int:
        """The new size of an axis."""

    def axes(self, value: Value) -> list[Axis]:
        """The axes of a value."""

    def shape(self, value: Value) -> tuple[int, ...]:
        """The new shape of a value."""

    def copied(self, op: Op, axis: Axis) -> tuple[int, ...]:
        """Of what an adapter's missing channels along a growing axis are copies; nothing if they are zero."""

    def paired(self, op: Op) -> bool:
        """Whether new units of a skip path are pairs of equal halves."""


class Rule(Protocol):
    """One sentence about an operator."""

    @property
    def by_index(self) -> bool:
        """Whether it takes states that differ along another axis (queries, keys and values in one tensor), or one."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Where each axis goes."""

    def states(self, op: Op, s: StateContext) -> None:
        """What becomes of the new units."""

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """The arguments that are sizes, after a growth."""


class SameSizes:
    """For rules of operators whose arguments hold no sizes."""

    by_index = False

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Nothing to change."""
        return {}


class Registry(dict[str, Rule]):
    """Rules by schema name, and how often they have changed: what was found out by others is out of date."""

    version = 0

    def __setitem__(self, name: str, rule: Rule) -> None:
        """Set a rule."""
        super().__setitem__(name, rule)
        WHOLE.add(name)
        self.version += 1

    def __delitem__(self, name: str) -> None:
        """Remove a rule."""
        super().__delitem__(name)
        WHOLE.discard(name)
        self.version += 1


RULES = Registry()
"""Every rule by schema name. Users add theirs with `register`."""


def register(rule: Rule, *names: str) -> None:
    """Give operators a rule. Names are schema names without namespace `aten::`, or with another one."""
    if not isinstance(getattr(rule, "by_index", None), bool):
        raise TypeError(f"{type(rule).__name__} must say `by_index`: False, unless it keeps states apart by index")
    for name in names:
        key = name if "::" in name else f"aten::{name}"
        if key in RULES:
            raise ValueError(f"{key} has a rule already")
        RULES[key] = rule


def normal(dim: int, rank: int) -> int:
    """A dimension counted from the left."""
    return dim + rank if dim < 0 else dim


def normal_dims(dims: object, rank: int) -> list[int]:
    """Dimensions counted from the left; None or nothing means all."""
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(rank))
    if isinstance(dims, int):
        return [normal(dims, rank or 1)] if rank else []
    assert isinstance(dims, list | tuple)
    return [normal(d, rank) for d in dims] if rank else []


def broadcast(d: AxisContext, sides: Sequence[tuple[Axis, int]]) -> Axis:
    """The axis that operands share under broadcasting; an axis of one unit that is repeated may not grow."""
    size = max(n for _, n in sides)
    out: Axis | None = None
    for axis, n in sides:
        if n != size:
            d.freeze(axis, Kind.BROADCAST, "its one unit is broadcast against a wider axis")
        else:
            out = axis if out is None else d.unify(out, axis)
    return out if out is not None else Fixed(size)


def pad_states(s: StateContext, rows: Sequence[Sequence[State]]) -> list[list[State]]:
    """Bring the states of one axis, as several operands have them, to the same number of occurrences.

    An operand that lacks the axis is the same along it. One whose axis is written with fewer occurrences, as (a + b) o
    beside (a o) + (b o), has one state for all of them.
    """
    width = max(map(len, rows), default=0)
    return [s.broadcast_states(row, width) if row else [s.same] * width for row in rows]


def regroup(s: StateContext, op: Op, states: Sequence[State], axes: Sequence[Axis]) -> list[list[State]]:
    """Hand a row of states out to axes that hold the same occurrences in the same order."""
    counts = [s.count(axis) for axis in axes]
    if sum(counts) == len(states):
        rest = iter(states)
        return [list(islice(rest, count)) for count in counts]
    if not states or not sum(counts):
        return [[s.merge(op, states)] * c if states else [s.same] * c for c in counts]
    same = s.merge(op, states)
    return [[same] * count for count in counts]
