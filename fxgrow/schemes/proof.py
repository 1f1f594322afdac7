"""The static proof: with the states chosen, walk the program and see every sum over new units vanish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..capture.program import Op
from ..dims.axis import Atom
from ..dims.solver import DimsSolver
from ..errors import Kind
from .flow import Propagation
from .states import Assignment, Failure, Place, Proof, State, Step, add, multiply


class Refuted(Exception):
    """A step of the proof does not hold."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class ProofDomain:
    """States as they are."""

    even, zero = State.EVEN, State.ZERO

    def __init__(self, assignment: Assignment, positions: Mapping[int, int]) -> None:
        self.assignment = assignment
        self.positions = positions
        self.steps: list[Step] = []
        self.eval_only: list[str] = []

    def _say(self, op: Op, text: str) -> None:
        step = Step(op.node, op.name, text)
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)

    def _refute(self, op: Op, text: str, kind: Kind = Kind.NO_PROOF) -> Refuted:
        return Refuted(Failure(kind, self.positions[id(op)], text))

    def place(self, place: Place) -> State:
        """As assigned."""
        return self.assignment[place]

    def add(self, op: Op, states: Sequence[State]) -> State:
        """Halves of one parity, or zero."""
        result = add(states)
        self._say(op, f"{' + '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "added")

    def mul(self, op: Op, states: Sequence[State]) -> State:
        """Signs multiply."""
        result = multiply(states)
        if len(states) > 1:
            self._say(op, f"{' x '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "multiplied")

    def apply(self, op: Op, states: Sequence[State], odd: bool, zero: bool) -> State:
        """Unit by unit."""
        if all(x is State.ZERO for x in states):
            result = State.ZERO if zero else State.EVEN
        elif all(x in (State.EVEN, State.ZERO) for x in states):
            result = State.EVEN
        elif odd and len(states) == 1 and states[0] is State.ODD:
            result = State.ODD
        else:
            result = State.UNKNOWN
        self._say(op, f"unit by unit: {', '.join(x.value for x in states)} -> {result.value}")
        return self._known(op, result, states, "passed through a function that is not odd")

    def require(self, op: Op, state: State, even: bool, why: str) -> State:
        """As demanded."""
        if state is State.ZERO or (even and state is not State.EVEN):
            raise self._refute(op, f"a new block that is {state.value} may not enter here: {why}")
        return state

    def contract(self, op: Op, factors: Sequence[State]) -> None:
        """Odd, or one zero factor."""
        if list(factors).count(State.ZERO) > 1:
            raise self._refute(
                op, "both sides of the sum are zero: no gradient would ever reach the new units", Kind.DEAD
            )
        result = multiply(factors)
        if result not in (State.ODD, State.ZERO):
            raise self._refute(op, f"the new units add up: {' x '.join(x.value for x in factors)} does not cancel")
        how = "the pairs cancel" if result is State.ODD else "the new units are multiplied by zero"
        self._say(op, f"summed over the new units: {' x '.join(x.value for x in factors)}, {how}")

    def merge(self, op: Op, states: Sequence[State]) -> State:
        """All alike."""
        if len(set(states)) > 1:
            raise self._refute(op, "occurrences with different states run together")
        return states[0]

    def only_eval(self, op: Op, why: str) -> None:
        """Remember where."""
        if op.node not in self.eval_only:
            self.eval_only.append(op.node)
            self._say(op, f"in evaluation mode only: {why}")

    def _known(self, op: Op, result: State, states: Sequence[State], how: str) -> State:
        if result is State.UNKNOWN:
            raise self._refute(op, f"nothing is known of {' and '.join(x.value for x in states)} when {how}")
        return result


def prove(dims: DimsSolver, sizes: Mapping[Atom, object], assignment: Assignment) -> Proof | Failure:
    """Prove a growth with these states, or say which step fails."""
    domain = ProofDomain(assignment, {id(op): i for i, op in enumerate(dims.program.ops)})
    try:
        Propagation(dims, sizes, domain).run()
    except Refuted as refuted:
        return refuted.failure
    return Proof(tuple(domain.steps), tuple(domain.eval_only))
