"""The static proof that a growth preserves the function: given the states of new units of all parameters, propagate
them through the program and check that every sum over new units vanishes."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

from ..analysis.flags import flags
from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin
from ..dims.axis import Atom
from ..errors import Kind
from ..rules.domains import NOT_ZERO, Domain
from ..rules.mixing import PINNED, Mixing
from .propagate import Propagation
from .reasons import DRAWN, MIXED, UNIFORM, stored_name
from .states import SHARE, Assignment, Failure, Place, Proof, State, Step, add, multiply, share_of, through
from .unread import read


class Refuted(Exception):
    """Raised when a step of the proof fails."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class ProofDomain:
    """The domain of a proof: its values are states. A step that fails raises `Refuted`."""

    same, zero, null = State.SAME, State.ZERO, State.NULL
    failure: Failure | None = None
    """Always None, because failures are raised."""

    def __init__(
        self,
        assignment: Assignment,
        positions: Mapping[int, int],
        *,
        fresh: bool = False,
        inside: bool = False,
        flags: Container[int] = (),
    ) -> None:
        """Create a domain for one proof.

        Args:
            assignment: the states of new units of parameters and buffers.
            positions: the position of each operator in the program, by identity.
            fresh: whether the program is a new block, in which statistics may change because all units are new.
            inside: whether new units are assumed to be in the domains of functions.
            flags: indices of boolean and integer parameters and buffers.
        """
        self.assignment = assignment
        self.flags = flags
        self.positions = positions
        self.fresh = fresh
        self.inside = inside or fresh
        self.steps: list[Step] = []
        self.eval_only: list[str] = []
        self.redrawn: list[str] = []
        self.scales: dict[int, float] = {}
        self.numbers: dict[int, dict[str, float]] = {}
        self.scaling: set[int] = set()
        """Normalisations that need the new scales, by identity."""
        self.uniform: set[Atom] = set()
        self.paired: dict[str, bool] = {}
        self.copied: set[str] = set()
        self.summing: list[Op] = []
        self.mixed: set[Atom] = set()
        self.idle: list[Op] = []
        """Sums of products of zeros with zeros."""
        self._lost: tuple[Op, str, Kind, str] | None = None

    def _say(self, op: Op, text: str) -> None:
        step = Step(op.node, op.name, text)
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)

    def _refute(self, op: Op, text: str, kind: Kind = Kind.NO_PROOF, hint: str = "") -> Refuted:
        return Refuted(Failure(kind, self.positions[id(op)], text, hint))

    def place(self, place: Place) -> State:
        """Return the state that the scheme has assigned."""
        state = self.assignment.get(place)
        if state not in HELD:
            said = "nothing" if state is None else repr(state)
            raise Unfounded(f"the scheme assigns {said} to new units of a parameter, which is not a valid state")
        if state not in HELD_BY_FLAGS and place.value in self.flags:
            raise Unfounded(f"new units of a boolean or integer tensor cannot be {state.value}")
        return state

    def add(self, op: Op, states: Sequence[State]) -> State:
        """Return the state of a sum."""
        result = add(states)
        self._say(op, f"{' + '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "added")

    def mul(self, op: Op, states: Sequence[State]) -> State:
        """Return the state of a product."""
        result = multiply(states)
        if len(states) > 1:
            self._say(op, f"{' x '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "multiplied")

    def map_units(
        self, op: Op, states: Sequence[State], odd: bool, zero: bool, linear: bool, homogeneous: bool
    ) -> State:
        """Return the state of a function that is applied to every unit separately."""
        result = through(states, odd=odd, zero=zero, linear=linear, homogeneous=homogeneous)
        self._say(op, f"a function of each unit: {', '.join(x.value for x in states)} -> {result.value}")
        how = "linear" if {State.SPLIT, State.MEAN} & set(states) else "odd"
        return self._known(op, result, states, f"passed through a function that is not {how}")

    def require(self, op: Op, state: State, even: bool, why: str) -> State:
        """Return the state, if it is not zero, and if `even` the same for paired units and copies.

        Raises:
            Refuted: it is not.
        """
        if state in _NOTHING or (even and state not in _TWINS):
            raise self._refute(op, f"new units that are {state.value} are not possible here: {why}")
        return state

    def within(self, op: Op, state: State, domain: Domain) -> State:
        """Return the state, if new units are in the domain because old ones are, as copies and means of them.

        Raises:
            Refuted: they may not be.
        """
        zero = state is State.ZERO and domain.holds(0, 0, zero=True)
        mean = state is State.MEAN and domain is not NOT_ZERO
        if self.inside or zero or mean or state not in _ANYWHERE:
            return state
        name = op.name.rpartition("::")[2]
        text = f"{name} is defined for {domain.text}, but new units that are drawn at random may have other values"
        raise self._refute(op, f"{text}, for which it returns NaN or infinity", hint=COPIES)

    def adapt(self, op: Op, state: State) -> None:
        """Record how new units of a skip path enter a join: pairs of equal units as a difference, others not at all."""
        self.summing.append(op)
        if state is State.SPLIT:
            raise self._refute(op, "a skip path whose old units are divided among copies cannot enter a join")
        self.paired[op.node] = state is State.EVEN and self.paired.get(op.node, True)
        self._say(op, "left - right vanishes" if state is State.EVEN else "the new units do not enter")

    def missing(self, op: Op, state: State) -> State:
        """Return COPY for channels beside copies, otherwise ZERO."""
        if state not in (State.COPY, State.SAME) or State.COPY not in self.assignment.values():
            return State.ZERO
        self.copied.add(op.node)
        self._say(op, "the channels that are added to the skip path are copies too")
        return State.COPY

    def mix(self, op: Op, state: State, mixing: Mixing) -> State:
        """Return the state after a normalisation, if new units preserve its statistics, or change them by a factor for
        which scale and epsilon compensate.

        Raises:
            Refuted: they do not.
        """
        kind, text = MIXED[mixing.kind]
        self.mixed.update(mixing.atoms)
        if self.fresh and state is State.EVEN and not mixing.degenerate:
            self._say(op, f"{mixing.kind} over {mixing.old} units, of which equal ones have equal statistics")
            return state
        if kind is Kind.STATISTIC:
            self._statistic(op, state, mixing)
            return state
        if state is State.COPY and mixing.even:
            self.uniform.update(mixing.atoms)
            self._say(op, f"{mixing.kind} over {mixing.old} -> {mixing.new} units, all copied equally often")
            return State.SPLIT if mixing.kind == "softmax" else self._shared(op, mixing)
        mean = mixing.kind == "layer_norm" and state is State.MEAN and mixing.alone
        if not (mean or (mixing.kind == "rms_norm" and state is State.ZERO)):
            raise self._refute(op, f"{text}: new units that are {state.value} change its statistics", kind)
        scale = mixing.scale
        if scale is None or scale.origin is not Origin.PARAMETER:
            what = f"{text}, and it has no scale parameter that could compensate for the new width"
            raise self._refute(op, what, kind, OWN_SCALE)
        factor = math.sqrt(mixing.old / mixing.new)
        if self.scales.setdefault(scale.index, factor) != factor:
            what = f"{text}, and its scale is shared by normalisations of different widths"
            raise self._refute(op, what, kind, OWN_SCALE)
        self.scaling.add(id(op))
        if mixing.epsilon is not None:
            self.numbers[id(op)] = {"eps": mixing.epsilon * mixing.old / mixing.new}
        self._say(op, f"{mixing.kind} maps {state.value} units to zero; scale x sqrt({mixing.old}/{mixing.new})")
        return State.ZERO

    def _shared(self, op: Op, mixing: Mixing) -> State:
        """Return COPY, or SPLIT if the parameter that scales the copies is divided by their number."""
        if mixing.gain is None or self.assignment.get(share_of(mixing.gain)) is not State.SPLIT:
            return State.COPY
        self.scales[mixing.gain.index] = mixing.old / mixing.new  # it has no other use
        self._say(op, f"scale x {mixing.old}/{mixing.new}: each copy has its share")
        return State.SPLIT

    def centre(self, op: Op, state: State) -> State:
        """Return the state after the mean has been subtracted: units that are the mean become zero."""
        if state is not State.MEAN:
            return self.add(op, [state, State.SAME])
        self._say(op, "new units that are the mean become zero")
        return State.ZERO

    def _statistic(self, op: Op, state: State, mixing: Mixing) -> None:
        """Check that new units preserve a statistic, if need be with another factor, correction or epsilon.

        Raises:
            Refuted: they do not.
        """
        old, new, correction = mixing.old, mixing.new, mixing.correction
        match mixing.kind, state:
            case (_, State.NULL) | ("mean" | "variance", State.SAME):
                how = "which are all the same"
            case ("mean" | "variance", State.COPY) if mixing.even:
                self.uniform.update(mixing.atoms)
                how = "all copied equally often"
                if mixing.kind == "variance" and correction:
                    self.numbers[id(op)] = {PINNED: correction * new / old}
                    how += f", correction {correction:g} -> {correction * new / old:g}"
            case ("mean", State.MEAN) if mixing.alone:
                how = "of which the new ones are the mean"
            case ("variance", State.MEAN) if mixing.alone:
                self.numbers[id(op)] = {PINNED: correction + new - old}
                how = f"of which the new ones are the mean, correction {correction:g} -> {correction + new - old:g}"
            case ("mean", State.ZERO | State.ODD | State.SPLIT):
                self.numbers[id(op)] = {PINNED: new / old}
                how = f"whose sum is preserved, times {new}/{old}"
            case ("norm", State.ZERO):
                how = "of which the new ones are zero"
            case ("extremum", State.COPY):
                how = "of which the new ones are copies"
            case ("cosine", State.COPY | State.SPLIT) if mixing.even and mixing.epsilon is not None:
                self.uniform.update(mixing.atoms)
                factor = math.sqrt(new / old if state is State.COPY else old / new)
                self.numbers[id(op)] = {"eps": mixing.epsilon * factor}
                how = f"all {'copied' if state is State.COPY else 'split'} equally often, epsilon x {factor:g}"
            case ("norm", State.COPY | State.SPLIT) if mixing.even:
                self.uniform.update(mixing.atoms)
                share = (1 if state is State.SPLIT else 0) - 1 / mixing.order
                how = f"all {'copied' if state is State.COPY else 'split'} equally often"
                if share:
                    self.numbers[id(op)] = {PINNED: (new / old) ** share}
                    how += f", times ({new}/{old})^{share:g}"
            case _:
                kind, text = MIXED[mixing.kind]
                raise self._refute(op, f"{text}: new units that are {state.value} change it", kind)
        self._say(op, f"{mixing.kind} over {old} -> {new} units, {how}")

    def contract(self, op: Op, factors: Sequence[State]) -> None:
        """Check that a sum of products over new units vanishes.

        Raises:
            Refuted: it does not.
        """
        self.summing.append(op)
        if list(factors).count(State.ZERO) > 1:
            self.idle.append(op)
        result = multiply(factors)
        if result not in (State.ODD, State.SPLIT, State.ZERO, State.NULL):
            if State.FREE in factors and self._lost is not None:
                raise self._refute(*self._lost)
            raise self._refute(op, f"the new units add up: {' x '.join(x.value for x in factors)} does not cancel")
        how = {
            State.ODD: "pairs cancel",
            State.SPLIT: "the original and its copies add up to the old value",
        }.get(result, "new units are multiplied by zero")
        self._say(op, f"summed over the new units: {' x '.join(x.value for x in factors)}, {how}")

    def merge(self, op: Op, states: Sequence[State]) -> State:
        """Return the state of a sum: it is valid for each of the occurrences."""
        return self._known(op, add(states), states, "merged")

    def keep(self, op: Op, before: State, after: State) -> None:
        """Check that the state after a call is valid as the state before the next one.

        Raises:
            Refuted: it is not.
        """
        if after is not before and before not in _KEPT.get(after, ()):
            text = f"new units of {stored_name(op)}, to which the model writes, would be {before.value} before a call "
            text += f"and {after.value} after it"
            raise self._refute(op, text, hint=WRITES)
        self._say(op, f"new units of {stored_name(op)} are {after.value} before and after the call")

    def drawn(self, op: Op, state: State, why: str) -> State:
        """Return the state of a product with free units. Single draws differ after the growth, because numbers are
        drawn for new units as well."""
        if op.node not in self.redrawn:
            self.redrawn.append(op.node)
            self._say(op, f"different random numbers with the same distribution: {why}")
        self._lost = (op, why, Kind.NO_PROOF, DRAWN) if state not in _NOTHING else self._lost
        return self.mul(op, [state, State.FREE])

    def only_eval(self, op: Op, why: str) -> None:
        """Record that the function is preserved at this operator in evaluation mode only."""
        if op.node not in self.eval_only:
            self.eval_only.append(op.node)
            self._say(op, f"in evaluation mode only: {why}")

    def _known(self, op: Op, result: State, states: Sequence[State], how: str) -> State:
        """Return a computed state; record where a state became FREE, and raise an error where it became LOST."""
        text = f"nothing is known of new units that are {' and '.join(x.value for x in states)} when they are {how}"
        if result is State.LOST:
            raise self._refute(op, text)
        if result is State.FREE and State.FREE not in states:
            self._lost = (op, text, Kind.NO_PROOF, "")
        return result

    def scaled_alone(self, ops: Sequence[Op]) -> None:
        """Check that a scale that compensates for a new width is used by its normalisations only.

        Raises:
            Refuted: another operator uses it.
        """
        scales = {i for i in self.scales if self.assignment.get(Place(i, SHARE, 0)) is not State.SPLIT}
        if not scales:
            return
        for op in ops:
            if id(op) not in self.scaling and any(v.index in scales for v in op.inputs()):
                text = "it uses the scale of a normalisation, which must change to compensate for the new width"
                raise self._refute(op, text, hint=OWN_SCALE)

    def alive(self, ops: Sequence[Op]) -> None:
        """Check that new units get a gradient: in a product of zeros with zeros they get none, unless one of the
        parameters is used elsewhere too (tied weights).

        Raises:
            Refuted: they do not.
        """
        if not self.idle:
            return
        idle = {id(op) for op in self.idle}
        busy = {v.index for op in ops if id(op) not in idle for v in op.inputs()}
        for op in self.idle:
            if not any(v.origin is Origin.PARAMETER and v.index in busy for v in op.inputs()):
                text = "both sides of the sum are zero: no gradient would ever reach the new units"
                raise self._refute(op, text, Kind.DEAD)


class Unfounded(Exception):
    """Raised if a scheme assigns no state to a parameter, or one that its new units cannot have."""


OWN_SCALE = f"give the normalisation its own weight, or {UNIFORM}"
"""Hint if the scale of a norm cannot compensate for a new width."""
WRITES = "another scheme, such as zero, or grow the model in a mode in which it does not write to it"
"""Hint if a buffer to which the model writes would not keep its state."""
HELD = frozenset({State.ZERO, State.EVEN, State.ODD, State.COPY, State.SPLIT, State.MEAN, State.FREE})
"""States that new units of a parameter or buffer can have."""
HELD_BY_FLAGS = frozenset({State.ZERO, State.EVEN, State.COPY, State.FREE})
"""States that new units of a boolean or integer tensor can have: its entries cannot be negated, divided or averaged."""
COPIES = 'scheme="net2net": copies have the values of old units'
"""Hint if new units may be outside the domain of a function."""
_ANYWHERE = frozenset({State.FREE, State.EVEN, State.ODD, State.ZERO, State.MEAN})
"""States of units whose values may differ from those of all old ones."""
_NOTHING = frozenset({State.ZERO, State.NULL})
_KEPT: Mapping[State, frozenset[State]] = {
    State.NULL: HELD,
    State.SAME: frozenset({State.EVEN, State.COPY, State.MEAN, State.FREE}),
    State.EVEN: frozenset({State.FREE}),
    State.COPY: frozenset({State.FREE}),
    State.MEAN: frozenset({State.FREE}),
}
"""For the state of new units after a call, the other states that they may have before it: the proof assumed less of
these. Zero and odd are not among them: a unit that is free may be a divisor, but not one that is zero or odd."""
_TWINS = frozenset({State.EVEN, State.COPY, State.SAME, State.FREE})
"""States that are possible where paired units need equal values; free units need not be equal."""


def prove(dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment) -> Proof | Failure:
    """Prove that a growth with given states preserves the function, or return the step that fails.

    Args:
        dims: the axes of the program.
        sizes: new sizes of the growing atoms.
        assignment: the states of new units of all parameters and buffers.
    """
    positions = {id(op): i for i, op in enumerate(dims.program.ops)}
    domain = ProofDomain(assignment, positions, fresh=dims.fresh, flags=flags(dims.program))
    flow = Propagation(dims, sizes, domain)
    try:
        flow.run()
        domain.scaled_alone(dims.program.ops)
        domain.alive(dims.touched(sizes))
    except Refuted as refuted:
        return refuted.failure
    except Unfounded as error:
        return Failure(Kind.NO_PROOF, domain.positions[id(flow.op)], str(error))
    paired = frozenset(node for node, pairs in domain.paired.items() if pairs)
    return Proof(
        tuple(domain.steps),
        tuple(domain.eval_only),
        domain.scales,
        domain.numbers,
        frozenset(domain.uniform),
        paired,
        frozenset(domain.copied),
        frozenset(read(dims, domain.summing) | domain.mixed),
        tuple(domain.redrawn),
    )
