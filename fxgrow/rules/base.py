"""The interface of rules: what fxgrow has to know about an ATen operator to grow a model that calls it.

A rule is an object with three methods, each of which gets one call of the operator (`Op`) and a context to work on:

* `dims(op, d)`: which axis of an output is which axis of an input? It sets the axes of the outputs, and unifies, splits
  or freezes axes where the operator requires it (`AxisContext`).
* `states(op, s)`: what do the new units hold in the outputs, given what they hold in the inputs? (`StateContext`)
* `resized(op, z)`: which arguments are sizes, and what are they after the growth? (`SizeContext`) All other arguments
  keep their values: a number that was computed from a growing size, but is used as an operand, is pinned.

An axis is an expression over sets of units that grow together, the atoms (`fxgrow/dims/axis.py`): `c`, `(g c)` for a
product, `c1 + c2` for a concatenation. For every occurrence of a growing atom in an axis of a value there is one state,
which says what its new units hold in that value: zeros, copies, pairs of equal units (`fxgrow/proof/states.py`).

The whole rule of an operator like relu, which preserves zeros but not signs (`AxisStates` has a row for each axis):

    class Relu(SameSizes):
        by_index = True

        def dims(self, op: Op, d: AxisContext) -> None:
            d.set(op.outputs[0], d.of(op.args["self"]))

        def states(self, op: Op, s: StateContext) -> None:
            rows = s.of(op.args["self"])
            s.set(op.outputs[0], [[s.map_units(op, [x], odd=False, zero=True) for x in row] for row in rows])

    register(Relu(), "relu")
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
"""What the new units of one atom hold in one value. Rules pass states on and combine them, but never inspect them: the
same rule computes with the states that are proved and with the unknowns from which a scheme chooses."""
AxisStates = list[list[State]]
"""The states of a value: a row for each axis, with one state for each occurrence of a growing atom in it. The row of an
axis that does not grow is empty."""


class AxisContext(Protocol):
    """The axes of all values of a program, as `Rule.dims` reads and sets them.

    A matrix product (... i k, ... k j -> ... i j) without batch axes:

        (i, k), (k2, j) = d.of(op.args["self"]), d.of(op.args["mat2"])
        d.contract(op, d.unify(k, k2))
        d.set(op.outputs[0], [i, j])
        d.produce(op, j, op.args["mat2"])
    """

    algebra: Algebra
    """Splits and concatenates axes: `d.algebra.split(axis, sizes)`, `d.algebra.cut(axis, sizes)`."""
    adapt_skips: bool
    """Whether residual joins keep the axes of their operands apart (skip="reshape")."""
    fresh: bool
    """Whether the program is a newly inserted block, in which all units are new and no old value has to stay."""

    def of(self, value: Value) -> list[Axis]:
        """Return the axes of a value, one for each dimension; the list is a copy that the rule may change.

        Example, for a reduction over the last dimension:

            axes = d.of(op.args["self"])
            d.set(op.outputs[0], axes[:-1])
        """

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Set the axes of an output, one for each of its dimensions. `Fixed(n)` is an axis that can never grow.

        Example, for pooling over the last dimension:

            *others, _ = d.of(op.args["self"])
            d.set(op.outputs[0], [*others, Fixed(op.outputs[0].shape[-1])])
        """

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """Forbid that an axis grows; the error that users see has the code of `kind` and contains `text`.

        Example, for a sort over the last dimension:

            axis = d.of(op.args["self"])[-1]
            d.freeze(axis, Kind.STATISTIC, "mixes all units of the axis")
        """

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Require that unit k of one axis is unit k of the other, so that both grow together; return the axis.

        Axes whose sizes or groups do not match are frozen. Example, for an addition without broadcasting:

            pairs = zip(d.of(op.args["self"]), d.of(op.args["other"]), strict=True)
            d.set(op.outputs[0], [d.unify(a, b) for a, b in pairs])
        """

    def contract(self, op: Op, axis: Axis) -> None:
        """Record that the operator sums over an axis: it consumes the units, and the output does not have the axis."""

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """Record that the operator creates an axis of its output: its units are those of an axis of `weight`. This is
        the axis that grows when users widen the layer."""

    def read(self, value: Value) -> bool:
        """Return whether some operator takes a value, or the model returns it."""

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """Record that two computed tensors are added, as in a residual connection.

        Args:
            op: the addition.
            operands: names of the arguments that hold the two tensors.

        Returns:
            True if the axes of the output have been set, with the skip path kept apart; otherwise the rule sets them.
        """


class StateContext(Protocol):
    """The states of all values of a program, as `Rule.states` reads and sets them.

    A product of two tensors of the same shape:

        pairs = zip(s.of(op.args["self"]), s.of(op.args["other"]), strict=True)
        s.set(op.outputs[0], [[s.mul(op, two) for two in zip(a, b, strict=True)] for a, b in pairs])
    """

    algebra: Algebra
    same: State
    """The state of an operand with one value for all units, old and new: a number, or a tensor that is broadcast."""
    zero: State
    """The state of an operand that is zero at every new unit."""
    null: State
    """The state of an operand that is zero at all units, old and new: the result of `torch.zeros`."""

    def axes(self, value: Value) -> list[Axis]:
        """Return the axes of a value, as the analysis has found them."""

    def count(self, axis: Axis) -> int:
        """Return how many occurrences of growing atoms an axis has, which is the length of its row of states."""

    def of(self, value: Value) -> AxisStates:
        """Return the states of a value, a row for each axis; the rows are copies that the rule may change.

        Example, for a transposition of two dimensions:

            rows = s.of(op.args["self"])
            s.set(op.outputs[0], rows[::-1])
        """

    def set(self, value: Value, rows: AxisStates) -> None:
        """Set the states of an output: a row for each of its axes, with as many states as `count` says. The states of a
        row with another number of them are merged into one.

        Example, for an output whose units all have one value:

            rows = [[s.same] * s.count(axis) for axis in s.axes(op.outputs[0])]
            s.set(op.outputs[0], rows)
        """

    def broadcast_states(self, row: Sequence[State], count: int) -> list[State]:
        """Return `count` states for an axis that another operand writes with `count` occurrences: (a + b) o against
        (a o) + (b o). States that cannot be told apart any more are merged."""

    def add(self, op: Op, states: Iterable[State]) -> State:
        """Return the state of a sum of operands with these states.

        Example, for `x + 1` along one axis:

            row = s.of(op.args["self"])[0]
            row = [s.add(op, [x, s.same]) for x in row]
        """

    def mul(self, op: Op, states: Iterable[State]) -> State:
        """Return the state of a product of operands with these states.

        Example, for a scale with one entry for each channel (axis 1):

            pairs = zip(s.of(op.args["input"])[1], s.of(op.args["weight"])[0], strict=True)
            row = [s.mul(op, pair) for pair in pairs]
        """

    def grown(self, axis: Axis) -> tuple[int, int]:
        """Return the size of an axis before and after the growth."""

    def select(self, state: State, axis: Axis, number: int) -> State:
        """Return a state after unit `number` of another axis has been selected, as in `x[:, number]`."""

    def piece(self, state: State, axis: Axis, start: int, taken: Axis) -> State:
        """Return a state after a slice of another axis has been taken: units from `start` on, which become `taken`."""

    def forget_index(self, state: State, axes: Sequence[Axis]) -> State:
        """Return one state for all units of other axes, because the operator mixes, moves or selects these units.

        A rule with `by_index = True` calls it for the axes that it does not treat unit by unit:

            over = [s.axes(op.args["self"])[-1]]
            rows = [[s.forget_index(x, over) for x in row] for row in s.of(op.args["self"])]
        """

    def by_index(self, op: Op, axis: Axis, states: Sequence[State]) -> State:
        """Return a state that differs along another axis of the output: `states` has one for each unit of `axis`."""

    def merge_axes(self, axes: Sequence[Axis], rows: AxisStates) -> list[State]:
        """Return the row of states of the one axis that these axes become, as in a view."""

    def split_axes(self, row: list[State], axes: Sequence[Axis]) -> AxisStates | None:
        """Return the rows of states of the axes into which one is split, if that one is a sum that was multiplied out
        and the axes hold the sum itself: a c + b c into (a + b) and c; None otherwise."""

    def map_units(
        self, op: Op, states: Iterable[State], *, odd: bool, zero: bool, linear: bool = False, homogeneous: bool = False
    ) -> State:
        """Return the state of a function that is applied to every unit separately.

        Args:
            op: the operator.
            states: of the operands of the function.
            odd: f(-x) = -f(x).
            zero: f(0) = 0.
            linear: f(ax + by) = a f(x) + b f(y) for each unit's own slice.
            homogeneous: f(cx, cy) = c f(x, y) for c > 0, as for relu and max.

        Example, for tanh along one axis:

            row = s.of(op.args["self"])[0]
            row = [s.map_units(op, [x], odd=True, zero=True) for x in row]
        """

    def require(self, op: Op, state: State, *, even: bool, why: str) -> State:
        """Require that new units are not zero, and if `even` that the two units of a pair, and copies, have one value,
        as the scale of a batch norm must. Otherwise the growth is refused with the reason `why`.

        Example, for a divisor:

            row = s.of(op.args["other"])[0]
            row = [s.require(op, x, even=True, why="it is a divisor") for x in row]
        """

    def within(self, op: Op, state: State, value: Value, domain: Domain) -> State:
        """Require that new units of the operand `value` are in the domain of a function, as the old ones are."""

    def adapt(self, op: Op, state: State) -> None:
        """Record that new units of a skip path enter a join through an adapter, which cancels or drops them."""

    def missing(self, op: Op, state: State) -> State:
        """Return the state of the channels that an adapter adds to a skip path, for a main path with this state."""

    def mix(self, op: Op, state: State, mixing: Mixing) -> State:
        """Return the state after a normalisation or a statistic over all units of the axis, which `mixing` describes;
        the growth is refused if the new units would change it."""

    def centre(self, op: Op, state: State) -> State:
        """Return the state after the mean over the axis has been subtracted."""

    def maker(self, value: Value) -> Op | None:
        """Return the operator that computes a value, if the growth reaches it."""

    def gain(self, value: Value) -> Value | None:
        """Return the parameter of which a value is a multiple, if that parameter has no other use."""

    def kept_apart(self, op: Op) -> tuple[Value, int] | None:
        """Return the skip operand of a join and the dimension along which an adapter changes its width; None if the
        operands of the join share all axes."""

    def contract(self, op: Op, factors: Sequence[State]) -> None:
        """Require that a sum of products over the new units vanishes, so that the output keeps its value.

        Example, for the summed axis of a matrix product:

            for pair in zip(s.of(op.args["self"])[-1], s.of(op.args["mat2"])[0], strict=True):
                s.contract(op, pair)
        """

    def merge(self, op: Op, states: Sequence[State]) -> State:
        """Return one state for several occurrences that cannot be told apart any more."""

    def keep(self, op: Op, before: State, after: State) -> None:
        """Require that a parameter or buffer that the model writes to is left in the state in which it was found."""

    def drawn(self, op: Op, state: State, why: str) -> State:
        """Return the state after a product with a random factor for every unit that is drawn in both modes."""

    def only_eval(self, op: Op, why: str) -> None:
        """Record that the function is preserved at this operator in evaluation mode only."""


class SizeContext(Protocol):
    """The sizes of all values after a growth, as `Rule.resized` reads them."""

    algebra: Algebra

    def size(self, axis: Axis) -> int:
        """Return the size of an axis after the growth."""

    def axes(self, value: Value) -> list[Axis]:
        """Return the axes of a value."""

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape of a value after the growth.

        Example, for `torch.zeros(size)`:

            def resized(self, op, z):
                return {"size": list(z.shape(op.outputs[0]))}
        """

    def copied(self, op: Op, axis: Axis) -> tuple[int, ...]:
        """Return for each channel that a skip adapter adds the one of which it is a copy; () if they are zeros."""

    def paired(self, op: Op) -> bool:
        """Return whether the new units of a skip path are pairs of equal units, which its adapter subtracts."""


class Rule(Protocol):
    """What fxgrow knows of an operator: how axes and states pass through it, and which arguments are sizes."""

    @property
    def by_index(self) -> bool:
        """Whether `states` takes states that differ along another axis (queries, keys and values in one tensor). If it
        is False, these are merged before the rule sees them."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Set the axes of the outputs from those of the inputs."""

    def states(self, op: Op, s: StateContext) -> None:
        """Set the states of the outputs from those of the inputs."""

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the arguments that are sizes, by name, with their values after the growth."""


class SameSizes:
    """Base class for rules of operators of which no argument is a size; states do not differ by index."""

    by_index = False

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return no arguments: none of them changes."""
        return {}


class Registry(dict[str, Rule]):
    """A dictionary of rules by schema name, which counts its changes so that cached analyses can be discarded."""

    version = 0
    """How often a rule has been set or removed."""

    def __setitem__(self, name: str, rule: Rule) -> None:
        """Set the rule of an operator, which is then not decomposed any more."""
        super().__setitem__(name, rule)
        WHOLE.add(name)
        self.version += 1

    def __delitem__(self, name: str) -> None:
        """Remove the rule of an operator."""
        super().__delitem__(name)
        WHOLE.discard(name)
        self.version += 1


RULES = Registry()
"""All rules by schema name, e.g. "aten::relu". Users add theirs with `register`."""


def register(rule: Rule, *names: str) -> None:
    """Register a rule for one or several operators.

    Args:
        rule: the rule.
        names: schema names; the namespace `aten::` may be left out.

    Raises:
        TypeError: the rule has no attribute `by_index`.
        ValueError: one of the operators has a rule already.
    """
    if not isinstance(getattr(rule, "by_index", None), bool):
        raise TypeError(
            f"{type(rule).__name__} needs the attribute by_index: False, unless its method states takes states that "
            "differ by index"
        )
    for name in names:
        key = name if "::" in name else f"aten::{name}"
        if key in RULES:
            raise ValueError(f"{key} already has a rule")
        RULES[key] = rule


def normal(dim: int, rank: int) -> int:
    """Return a dimension counted from the left; a negative one is counted from the right."""
    return dim + rank if dim < 0 else dim


def normal_dims(dims: object, rank: int) -> list[int]:
    """Return dimensions counted from the left; None or an empty list stands for all of them."""
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(rank))
    if isinstance(dims, int):
        return [normal(dims, rank or 1)] if rank else []
    assert isinstance(dims, list | tuple)
    return [normal(d, rank) for d in dims] if rank else []


def broadcast(d: AxisContext, sides: Sequence[tuple[Axis, int]]) -> Axis:
    """Return the axis that results when operands are broadcast along one dimension.

    Args:
        d: the axes.
        sides: the axis and the size of each operand. An axis of size 1 is frozen if another operand has a larger size.
    """
    size = max(n for _, n in sides)
    out: Axis | None = None
    for axis, n in sides:
        if n != size:
            d.freeze(axis, Kind.BROADCAST, "its size 1 is broadcast to a larger size")
        else:
            out = axis if out is None else d.unify(out, axis)
    return out if out is not None else Fixed(size)


def pad_states(s: StateContext, rows: Sequence[Sequence[State]]) -> list[list[State]]:
    """Return the states of several operands along one axis, with the same number of occurrences for all of them.

    An operand without the axis is the same for all its units. The states of an operand whose axis has fewer
    occurrences, as (a + b) o beside (a o) + (b o), are merged into one.
    """
    width = max(map(len, rows), default=0)
    return [s.broadcast_states(row, width) if row else [s.same] * width for row in rows]


def regroup(s: StateContext, op: Op, states: Sequence[State], axes: Sequence[Axis]) -> list[list[State]]:
    """Distribute a row of states over axes that hold the same occurrences in the same order."""
    counts = [s.count(axis) for axis in axes]
    if sum(counts) == len(states):
        rest = iter(states)
        return [list(islice(rest, count)) for count in counts]
    if not states or not sum(counts):
        return [[s.merge(op, states)] * c if states else [s.same] * c for c in counts]
    same = s.merge(op, states)
    return [[same] * count for count in counts]
