"""Propagation: rules push states through the program, in whatever domain they are asked to compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from ..capture.program import Op, Origin, Value
from ..dims.axis import Atom, Axis, atoms
from ..dims.rules import RULES
from ..dims.solver import DimsSolver
from ..errors import GrowthRefused, Kind, Refusal
from .states import Place

S = TypeVar("S")


class Domain(Protocol[S]):
    """What states are made of, and how they combine. One for choosing states, one for proving them."""

    even: S
    zero: S

    def place(self, place: Place) -> S:
        """The state of a parameter at one occurrence."""

    def add(self, op: Op, states: Sequence[S]) -> S:
        """A sum."""

    def mul(self, op: Op, states: Sequence[S]) -> S:
        """A product."""

    def apply(self, op: Op, states: Sequence[S], odd: bool, zero: bool) -> S:
        """A function applied unit by unit."""

    def require(self, op: Op, state: S, even: bool, why: str) -> S:
        """A state that must be even, or at least not zero."""

    def contract(self, op: Op, factors: Sequence[S]) -> None:
        """A sum over the new units that must vanish."""

    def merge(self, op: Op, states: Sequence[S]) -> S:
        """Occurrences that can no longer be told apart."""

    def only_eval(self, op: Op, why: str) -> None:
        """A step that holds in evaluation mode only."""


class Propagation(Generic[S]):
    """One walk over the operators that a growth touches. This is the `Flow` that rules see."""

    def __init__(self, dims: DimsSolver, sizes: Mapping[Atom, object], domain: Domain[S]) -> None:
        self.dims = dims
        self.algebra = dims.algebra
        self.growing = sizes
        self.domain = domain
        self.even, self.zero = domain.even, domain.zero
        self._marks: dict[int, list[list[S]]] = {}
        self._op = dims.program.ops[0]

    def run(self) -> Propagation[S]:
        """Walk forward."""
        for op in self.dims.touched(self.growing):
            self._op = op
            try:
                RULES[op.name].states(op, self)
            except (AssertionError, IndexError, KeyError, ValueError) as error:
                raise GrowthRefused(
                    Refusal(
                        Kind.CHECK_FAILED,
                        f"the rule for {op.name} lost track of the new units: {error}",
                        where=op.node,
                        hint="nothing was changed; please report the model, or mend the rule if it is yours",
                    )
                ) from error
        return self

    def axes(self, value: Value) -> list[Axis]:
        """The axes of a value."""
        return self.dims.resolved(value)

    def count(self, axis: Axis) -> int:
        """How many occurrences of growing atoms an axis has."""
        return sum(atom in self.growing for atom in atoms(self.algebra.resolve(axis)))

    def of(self, value: Value) -> list[list[S]]:
        """The states of a value; those of parameters come from the domain."""
        known = self._marks.get(value.index)
        if known is None:
            parameter = value.origin is Origin.PARAMETER
            known = []
            for k, axis in enumerate(self.axes(value)):
                count = self.count(axis)
                assert parameter or not count, f"{value} carries a growing axis, but nothing computed its states"
                known.append([self.domain.place(Place(value.index, k, i)) for i in range(count)])
            self._marks[value.index] = known
        return [list(row) for row in known]

    def set(self, value: Value, marks: list[list[S]]) -> None:
        """Say what the states of an output are."""
        counts = [self.count(axis) for axis in self.axes(value)]
        assert len(counts) == len(marks), f"{value} has {len(counts)} axes, not {len(marks)}"
        self._marks[value.index] = [self.fit(row, count) for row, count in zip(marks, counts, strict=True)]

    def fit(self, row: Sequence[S], count: int) -> list[S]:
        """States of an axis that is written with another number of occurrences: (a o) + (b o) against (a + b) o."""
        if len(row) == count:
            return list(row)
        assert bool(row) == bool(count), f"{len(row)} states for {count} occurrences"
        return [self.domain.merge(self._op, list(row))] * count

    def add(self, op: Op, states: Iterable[S]) -> S:
        """The state of a sum."""
        return self.domain.add(op, list(states))

    def mul(self, op: Op, states: Iterable[S]) -> S:
        """The state of a product."""
        return self.domain.mul(op, list(states))

    def apply(self, op: Op, states: Iterable[S], *, odd: bool, zero: bool, why: str = "") -> S:
        """The state of a function applied unit by unit."""
        return self.domain.apply(op, list(states), odd, zero)

    def require(self, op: Op, state: S, *, even: bool, why: str) -> S:
        """Demand that a state is even, or at least not zero."""
        return self.domain.require(op, state, even, why)

    def kept_apart(self, op: Op) -> tuple[Value, int] | None:
        """The skip operand of a join, and the axis along which an adapter stands between it and the result."""
        return self.dims.kept_apart(op)

    def contract(self, op: Op, factors: Sequence[S]) -> None:
        """Demand that a sum over the new units vanishes."""
        self.domain.contract(op, list(factors))

    def merge(self, op: Op, states: Sequence[S]) -> S:
        """The state of occurrences that can no longer be told apart."""
        return self.domain.merge(op, list(states))

    def only_eval(self, op: Op, why: str) -> None:
        """Note that this step holds in evaluation mode only."""
        self.domain.only_eval(op, why)
