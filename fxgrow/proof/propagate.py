"""Propagation: runs the rules of all operators that a growth affects, on the values of a domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin, Value
from ..dims.axis import ONE, Atom, Axis, atoms
from ..errors import GrowthRefused, Kind, Refusal
from ..rules import RULES
from ..rules.domains import Domain as Interval
from ..rules.mixing import Mixing
from .domain import Domain
from .drawn import taken
from .gains import gain_of
from .occurrences import cells, indices_of, opened_in, places_of, times
from .per_index import ByIndex, each, forget_index, merge_axes, nested, one, part, split_axes

S = TypeVar("S")


class Propagation(Generic[S]):
    """The states of all values that a growth affects: the `StateContext` of rules.

    Args:
        dims: the axes of the program.
        sizes: new sizes of the growing atoms.
        domain: the values with which rules compute.
    """

    def __init__(self, dims: DimsSolver, sizes: Mapping[Atom, int], domain: Domain[S]) -> None:
        self.dims = dims
        self.algebra = dims.algebra
        self.growing = sizes
        self.domain = domain
        self.same, self.zero, self.null = domain.same, domain.zero, domain.null
        self._marks: dict[int, list[list[Any]]] = {}
        self._made: dict[int, Op] = {}
        self._op = dims.program.ops[0]

    def run(self) -> Propagation[S]:
        """Run the rules of all affected operators in order, until the domain reports a failure; return self."""
        for op in self.dims.touched(self.growing):
            self._op = op
            self._made.update((out.index, op) for out in op.outputs)
            try:
                RULES[op.name].states(op, self)
            except (AssertionError, IndexError, KeyError, ValueError) as error:
                raise GrowthRefused(
                    Refusal(
                        Kind.CHECK_FAILED,
                        f"the rule for {op.name} failed on the new units: {error}",
                        where=op.node,
                        hint="the model was not changed; please report it, or correct the rule if it is yours",
                    )
                ) from error
            if self.domain.failure is not None:
                break
        return self

    @property
    def op(self) -> Op:
        """The operator whose rule is running."""
        return self._op

    def axes(self, value: Value) -> list[Axis]:
        """Return the axes of a value."""
        return self.dims.resolved(value)

    def count(self, axis: Axis) -> int:
        """Return how many occurrences of growing atoms an axis has."""
        return sum(atom in self.growing for atom in atoms(self.algebra.resolve(axis)))

    def grown(self, axis: Axis) -> tuple[int, int]:
        """Return the size of an axis before and after the growth."""
        return self.algebra.measure(axis), self.algebra.measure(axis, self.growing)

    def of(self, value: Value) -> list[list[Any]]:
        """Return the states of a value; those of parameters come from the domain."""
        known = self._marks.get(value.index)
        if known is None:
            parameter = value.origin is Origin.PARAMETER
            axes = self.axes(value)
            assert parameter or not any(map(self.count, axes)), f"nothing computed the states of {value}"
            known = self._marks[value.index] = [self._places(value, k, axis) for k, axis in enumerate(axes)]
        rule = RULES.get(self._op.name)
        if rule is not None and rule.by_index:
            return [[self._once(state) for state in row] for row in known]
        return [[self._one(state) for state in row] for row in known]

    def said(self, value: Value) -> list[list[S | ByIndex]]:
        """Return the states of a value as they were set; those that differ by index are not merged."""
        return self._marks[value.index]

    def _places(self, value: Value, k: int, axis: Axis) -> list[Any]:
        rows: dict[int, list[S]] = {}
        for place in places_of(self.dims, self.growing, value, k, axis):
            rows.setdefault(place.occurrence, []).append(self.domain.place(place))
        told = zip(indices_of(self.dims, self.growing, axis), rows.values(), strict=True)
        return [self._held(nested(self.dims, index, row), self.axes(value)) for index, row in told]

    def set(self, value: Value, rows: list[list[Any]]) -> None:
        """Set the states of an output."""
        axes, growing = self.axes(value), self.growing
        counts = [sum(atom in growing for atom in held) for held in self.dims.occurrences(value)]
        assert len(counts) == len(rows), f"{value} has {len(counts)} axes, not {len(rows)}"
        rows = [self.broadcast_states(row, count) for row, count in zip(rows, counts, strict=True)]
        self._marks[value.index] = [[self._held(x, axes) for x in row] for row in rows]

    def _held(self, state: Any, axes: Sequence[Axis]) -> Any:
        """Return a state that differs by index only along expressions that occur exactly once in these axes."""
        if not isinstance(state, ByIndex):
            return state
        axis = state.axis if times(axes, state.axis) else opened_in(axes, state.axis)
        if axis is None or times(axes, axis) != 1:
            return self._held(each(list(state.states), self._merged), axes)
        return ByIndex(axis, tuple(self._held(x, axes) for x in state.states))

    def _once(self, state: Any) -> Any:
        """Return the state of an operand: if the result has its index axis twice, the states of all indices are merged,
        because each unit is combined with each other."""
        if not isinstance(state, ByIndex):
            return state
        if any(times(self.axes(out), state.axis) > 1 for out in self._op.outputs):
            return self._one(state)
        return ByIndex(state.axis, tuple(map(self._once, state.states)))

    def select(self, state: Any, axis: Axis, number: int) -> Any:
        """Return a state after one unit of another axis has been selected."""
        return self.piece(state, axis, number, ONE)

    def piece(self, state: Any, axis: Axis, start: int, taken: Axis) -> Any:
        """Return a state after a slice of another axis has been taken: units from `start` on, which become `taken`."""
        axis, taken = self.algebra.resolve(axis), self.algebra.resolve(taken)
        return part(self.dims, state, axis, start, taken, self._merged)

    def forget_index(self, state: Any, axes: Sequence[Axis]) -> Any:
        """Return one state for all units of other axes."""
        return forget_index(state, list(map(self.algebra.resolve, axes)), self._merged)

    def by_index(self, op: Op, axis: Axis, states: Sequence[Any]) -> Any:
        """Return a state that differs along another axis of the result, if states may differ along it."""
        axis = self.algebra.resolve(axis)
        alike = all(x == states[0] for x in states) or len(cells(self.dims, axis)) != len(states)
        return self.merge(op, states) if alike else ByIndex(axis, tuple(states))

    def merge_axes(self, axes: Sequence[Axis], rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the states of the axis into which several are merged."""
        return merge_axes(self.dims, list(map(self.algebra.resolve, axes)), rows, self.count, self._merged)

    def split_axes(self, row: Sequence[Any], axes: Sequence[Axis]) -> list[list[Any]] | None:
        """Return the states of the axes into which one is split, if it is a sum that was multiplied out."""
        return split_axes(self.dims, row, list(map(self.algebra.resolve, axes)), self.count)

    def _merged(self, states: Sequence[Any]) -> Any:
        return self.domain.merge(self._op, states)

    def broadcast_states(self, row: Sequence[Any], count: int) -> list[Any]:
        """Return states for another number of occurrences of the same axis: (a o) + (b o) against (a + b) o."""
        if len(row) == count:
            return list(row)
        assert bool(row) == bool(count), f"{len(row)} states for {count} occurrences"
        return [self.merge(self._op, list(row))] * count

    def _one(self, state: Any) -> Any:
        return one(state, self._merged)

    def add(self, op: Op, states: Iterable[Any]) -> Any:
        """Return the state of a sum."""
        return each(list(states), lambda some: self.domain.add(op, some))

    def mul(self, op: Op, states: Iterable[Any]) -> Any:
        """Return the state of a product."""
        return each(list(states), lambda some: self.domain.mul(op, some))

    def map_units(
        self, op: Op, states: Iterable[Any], *, odd: bool, zero: bool, linear: bool = False, homogeneous: bool = False
    ) -> Any:
        """Return the state of a function that is applied to every unit separately."""
        return each(list(states), lambda some: self.domain.map_units(op, some, odd, zero, linear, homogeneous))

    def require(self, op: Op, state: Any, *, even: bool, why: str) -> Any:
        """Require that new units are not zero, and if `even` that paired units are equal."""
        return each([state], lambda some: self.domain.require(op, some[0], even, why))

    def within(self, op: Op, state: Any, value: Value, domain: Interval) -> Any:
        """Require that new units of an operand are in a domain, unless it follows from bounds, or from new entries that
        are taken from old units."""
        if self.dims.ranges.inside(value, domain) or taken(self.dims, value):
            return state
        return each([state], lambda some: self.domain.within(op, some[0], domain))

    def adapt(self, op: Op, state: Any) -> None:
        """Record that a skip path enters a join through an adapter."""
        self.domain.adapt(op, self._one(state))

    def missing(self, op: Op, state: Any) -> Any:
        """Return the state of the channels that an adapter adds to a skip path, for a main path with this state."""
        return each([state], lambda some: self.domain.missing(op, some[0]))

    def mix(self, op: Op, state: Any, mixing: Mixing) -> Any:
        """Return the state after a normalisation or a statistic over all units of the axis."""
        return self.domain.mix(op, self._one(state), mixing)

    def centre(self, op: Op, state: Any) -> Any:
        """Return the state after the mean over the axis has been subtracted."""
        return each([state], lambda some: self.domain.centre(op, some[0]))

    def maker(self, value: Value) -> Op | None:
        """Return the operator that computes a value, if the growth affects it."""
        return self._made.get(value.index)

    def gain(self, value: Value) -> Value | None:
        """Return the parameter of which a value is a multiple, if it has no other use."""
        return gain_of(self.dims.program, value)

    def kept_apart(self, op: Op) -> tuple[Value, int] | None:
        """Return the skip operand of a join and the dimension along which an adapter changes its width."""
        return self.dims.kept_apart(op)

    def contract(self, op: Op, factors: Sequence[Any]) -> None:
        """Require that a sum of products over the new units vanishes."""
        each(list(factors), lambda some: self.domain.contract(op, some))

    def merge(self, op: Op, states: Sequence[Any]) -> Any:
        """Return one state for several occurrences that cannot be told apart any more."""
        return each(list(states), lambda some: self.domain.merge(op, some))

    def keep(self, op: Op, before: Any, after: Any) -> None:
        """Require that a parameter or buffer is left in the state in which it was found."""
        each([before, after], lambda some: self.domain.keep(op, some[0], some[1]))

    def drawn(self, op: Op, state: Any, why: str) -> Any:
        """Return the state after a product with a random factor for every unit that is drawn in both modes."""
        return each([state], lambda some: self.domain.drawn(op, some[0], why))

    def only_eval(self, op: Op, why: str) -> None:
        """Record that the function is preserved at this operator in evaluation mode only."""
        self.domain.only_eval(op, why)
