"""The static proof: with the states chosen, walk the program and see every sum over new units vanish."""

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
    """A step of the proof does not hold."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class ProofDomain:
    """States as they are."""

    same, zero, null = State.SAME, State.ZERO, State.NULL
    failure: Failure | None = None
    """A step that does not hold is raised instead."""

    def __init__(
        self,
        assignment: Assignment,
        positions: Mapping[int, int],
        *,
        fresh: bool = False,
        inside: bool = False,
        flags: Container[int] = (),
    ) -> None:
        """`flags`: values that hold flags or whole numbers."""
        self.assignment = assignment
        self.flags = flags
        self.positions = positions
        self.fresh = fresh
        """Whether all units are new, so that statistics may be anything."""
        self.inside = inside or fresh
        """Whether new units are taken to be in the domains of functions, so that the old ones are no help."""
        self.steps: list[Step] = []
        self.eval_only: list[str] = []
        self.redrawn: list[str] = []
        self.scales: dict[int, float] = {}
        self.numbers: dict[int, dict[str, float]] = {}
        self.scaling: set[int] = set()
        """Operators that need the scales as they will be."""
        self.uniform: set[Atom] = set()
        self.paired: dict[str, bool] = {}
        self.copied: set[str] = set()
        self.summing: list[Op] = []
        self.mixed: set[Atom] = set()
        self.idle: list[Op] = []
        """Contractions of zeros with zeros."""
        self._lost: tuple[Op, str, Kind, str] | None = None

    def _say(self, op: Op, text: str) -> None:
        step = Step(op.node, op.name, text)
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)

    def _refute(self, op: Op, text: str, kind: Kind = Kind.NO_PROOF, hint: str = "") -> Refuted:
        return Refuted(Failure(kind, self.positions[id(op)], text, hint))

    def place(self, place: Place) -> State:
        """As assigned."""
        state = self.assignment.get(place)
        if state not in HELD:
            said = "nothing" if state is None else repr(state)
            raise Unfounded(f"the scheme says {said} of new units of a parameter, which is nothing that they can hold")
        if state not in HELD_BY_FLAGS and place.value in self.flags:
            raise Unfounded(f"new units of a tensor of flags or whole numbers cannot be {state.value}")
        return state

    def add(self, op: Op, states: Sequence[State]) -> State:
        """Alike, or zero."""
        result = add(states)
        self._say(op, f"{' + '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "added")

    def mul(self, op: Op, states: Sequence[State]) -> State:
        """Signs multiply."""
        result = multiply(states)
        if len(states) > 1:
            self._say(op, f"{' x '.join(x.value for x in states)} = {result.value}")
        return self._known(op, result, states, "multiplied")

    def map_units(
        self, op: Op, states: Sequence[State], odd: bool, zero: bool, linear: bool, homogeneous: bool
    ) -> State:
        """Unit by unit."""
        result = through(states, odd=odd, zero=zero, linear=linear, homogeneous=homogeneous)
        self._say(op, f"unit by unit: {', '.join(x.value for x in states)} -> {result.value}")
        how = "linear" if {State.SPLIT, State.MEAN} & set(states) else "odd"
        return self._known(op, result, states, f"passed through a function that is not {how}")

    def require(self, op: Op, state: State, even: bool, why: str) -> State:
        """As demanded."""
        if state in _NOTHING or (even and state not in _TWINS):
            raise self._refute(op, f"a new block that is {state.value} may not enter here: {why}")
        return state

    def within(self, op: Op, state: State, domain: Domain) -> State:
        """Copies are where their originals are, and means are between them."""
        zero = state is State.ZERO and domain.holds(0, 0, zero=True)
        mean = state is State.MEAN and domain is not NOT_ZERO
        if self.inside or zero or mean or state not in _ANYWHERE:
            return state
        name = op.name.rpartition("::")[2]
        text = f"{name} is defined for {domain.text}, and new units that are drawn at random may be others"
        raise self._refute(op, f"{text}: it would return NaN or infinity", hint=COPIES)

    def adapt(self, op: Op, state: State) -> None:
        """Equal halves enter as a difference; whatever else there is stays outside. An adapter may learn to read it."""
        self.summing.append(op)
        if state is State.SPLIT:
            raise self._refute(op, "a skip path whose old units are shared out with copies may not enter a join")
        self.paired[op.node] = state is State.EVEN and self.paired.get(op.node, True)
        self._say(op, "left - right vanishes" if state is State.EVEN else "the new units do not enter")

    def missing(self, op: Op, state: State) -> State:
        """Copies beside copies, else zeros."""
        if state not in (State.COPY, State.SAME) or State.COPY not in self.assignment.values():
            return State.ZERO
        self.copied.add(op.node)
        self._say(op, "channels that the skip path lacks are copies too")
        return State.COPY

    def mix(self, op: Op, state: State, mixing: Mixing) -> State:
        """The statistics stay, or change by a factor that scale and epsilon make good."""
        kind, text = MIXED[mixing.kind]
        self.mixed.update(mixing.atoms)
        if self.fresh and state is State.EVEN and not mixing.degenerate:
            self._say(op, f"{mixing.kind} over {mixing.old} units, of which equal ones see the same")
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
            what = f"{text}, and no parameter is its scale and could make up for the new width"
            raise self._refute(op, what, kind, OWN_SCALE)
        factor = math.sqrt(mixing.old / mixing.new)
        if self.scales.setdefault(scale.index, factor) != factor:
            raise self._refute(op, f"{text}, and its scale serves two normalisations of other widths", kind, OWN_SCALE)
        self.scaling.add(id(op))
        if mixing.epsilon is not None:
            self.numbers[id(op)] = {"eps": mixing.epsilon * mixing.old / mixing.new}
        self._say(op, f"{state.value} units leave {mixing.kind} as zeros; scale x sqrt({mixing.old}/{mixing.new})")
        return State.ZERO

    def _shared(self, op: Op, mixing: Mixing) -> State:
        """Copies, or their shares if the parameter that scales them is divided by their number."""
        if mixing.gain is None or self.assignment.get(share_of(mixing.gain)) is not State.SPLIT:
            return State.COPY
        self.scales[mixing.gain.index] = mixing.old / mixing.new  # which nothing else reads
        self._say(op, f"scale x {mixing.old}/{mixing.new}: each copy has its share")
        return State.SPLIT

    def centre(self, op: Op, state: State) -> State:
        """Units that are the mean become zero."""
        if state is not State.MEAN:
            return self.add(op, [state, State.SAME])
        self._say(op, "new units that are the mean lose it, and are zero")
        return State.ZERO

    def _statistic(self, op: Op, state: State, mixing: Mixing) -> None:
        """A mean, a variance or a norm that stays as it was, or would if it divided by another number."""
        old, new, correction = mixing.old, mixing.new, mixing.correction
        match mixing.kind, state:
            case (_, State.NULL) | ("mean" | "variance", State.SAME):
                how = "which all are the same"
            case ("mean" | "variance", State.COPY) if mixing.even:
                self.uniform.update(mixing.atoms)
                how = "all copied equally often"
                if mixing.kind == "variance" and correction:
                    self.numbers[id(op)] = {PINNED: correction * new / old}
                    how += f", correction {correction:g} -> {correction * new / old:g}"
            case ("mean", State.MEAN) if mixing.alone:
                how = "whose mean the new ones are"
            case ("variance", State.MEAN) if mixing.alone:
                self.numbers[id(op)] = {PINNED: correction + new - old}
                how = f"whose mean the new ones are, correction {correction:g} -> {correction + new - old:g}"
            case ("mean", State.ZERO | State.ODD | State.SPLIT):
                self.numbers[id(op)] = {PINNED: new / old}
                how = f"the sum of which stays, times {new}/{old}"
            case ("norm", State.ZERO):
                how = "of which the new ones are zero"
            case ("extremum", State.COPY):
                how = "of which the new ones are copies"
            case ("cosine", State.COPY | State.SPLIT) if mixing.even and mixing.epsilon is not None:
                self.uniform.update(mixing.atoms)
                factor = math.sqrt(new / old if state is State.COPY else old / new)
                self.numbers[id(op)] = {"eps": mixing.epsilon * factor}
                how = f"all {'copied' if state is State.COPY else 'shared out'} equally often, epsilon x {factor:g}"
            case ("norm", State.COPY | State.SPLIT) if mixing.even:
                self.uniform.update(mixing.atoms)
                share = (1 if state is State.SPLIT else 0) - 1 / mixing.order
                how = "all copied equally often" if state is State.COPY else "all shared out equally often"
                if share:
                    self.numbers[id(op)] = {PINNED: (new / old) ** share}
                    how += f", times ({new}/{old})^{share:g}"
            case _:
                kind, text = MIXED[mixing.kind]
                raise self._refute(op, f"{text}: new units that are {state.value} change it", kind)
        self._say(op, f"{mixing.kind} over {old} -> {new} units, {how}")

    def contract(self, op: Op, factors: Sequence[State]) -> None:
        """Odd, split, or one zero factor."""
        self.summing.append(op)
        if list(factors).count(State.ZERO) > 1:
            self.idle.append(op)
        result = multiply(factors)
        if result not in (State.ODD, State.SPLIT, State.ZERO, State.NULL):
            if State.FREE in factors and self._lost is not None:
                raise self._refute(*self._lost)
            raise self._refute(op, f"the new units add up: {' x '.join(x.value for x in factors)} does not cancel")
        how = {
            State.ODD: "the pairs cancel",
            State.SPLIT: "copies share what their original had",
        }.get(result, "the new units are multiplied by zero")
        self._say(op, f"summed over the new units: {' x '.join(x.value for x in factors)}, {how}")

    def merge(self, op: Op, states: Sequence[State]) -> State:
        """As a sum of blocks that stand beside each other."""
        return self._known(op, add(states), states, "run together")

    def keep(self, op: Op, before: State, after: State) -> None:
        """The next call reads what this one leaves, and so must find what this one found."""
        if after is not before and before not in _KEPT.get(after, ()):
            text = (
                f"new units of {stored_name(op)}, into which the model writes, would be {before.value} before a call "
            )
            text += f"and {after.value} after it"
            raise self._refute(op, text, hint=WRITES)
        self._say(op, f"{stored_name(op)} is left with new units that are {after.value}, as it was found")

    def drawn(self, op: Op, state: State, why: str) -> State:
        """A product with anything. Single draws are others, because numbers are drawn for new units as well."""
        if op.node not in self.redrawn:
            self.redrawn.append(op.node)
            self._say(op, f"other random numbers, of one distribution: {why}")
        self._lost = (op, why, Kind.NO_PROOF, DRAWN) if state not in _NOTHING else self._lost
        return self.mul(op, [state, State.FREE])

    def only_eval(self, op: Op, why: str) -> None:
        """Remember where."""
        if op.node not in self.eval_only:
            self.eval_only.append(op.node)
            self._say(op, f"in evaluation mode only: {why}")

    def _known(self, op: Op, result: State, states: Sequence[State], how: str) -> State:
        """Anything may follow from anything; if that is a loss, remember where it happened."""
        text = f"nothing is known of {' and '.join(x.value for x in states)} when {how}"
        if result is State.LOST:
            raise self._refute(op, text)
        if result is State.FREE and State.FREE not in states:
            self._lost = (op, text, Kind.NO_PROOF, "")
        return result

    def scaled_alone(self, ops: Sequence[Op]) -> None:
        """A scale that makes up for a width has no other reader."""
        scales = {i for i in self.scales if self.assignment.get(Place(i, SHARE, 0)) is not State.SPLIT}
        if not scales:
            return
        for op in ops:
            if id(op) not in self.scaling and any(v.index in scales for v in op.inputs()):
                text = "it reads the scale of a normalisation that has to make up for the new width"
                raise self._refute(op, text, hint=OWN_SCALE)

    def alive(self, ops: Sequence[Op]) -> None:
        """Zeros that meet zeros get no gradient, unless a parameter among them is used elsewhere too (tied weights)."""
        if not self.idle:
            return
        idle = {id(op) for op in self.idle}
        busy = {v.index for op in ops if id(op) not in idle for v in op.inputs()}
        for op in self.idle:
            if not any(v.origin is Origin.PARAMETER and v.index in busy for v in op.inputs()):
                text = "both sides of the sum are zero: no gradient would ever reach the new units"
                raise self._refute(op, text, Kind.DEAD)


class Unfounded(Exception):
    """A scheme leaves out a parameter, or gives it a state that no tensor can hold."""


OWN_SCALE = f"give the normalisation a weight of its own, or {UNIFORM}"
"""A way out where the scale of a norm cannot make up for a width."""
WRITES = "another scheme, such as zero, or grow the model in a mode in which it does not write to it"
"""A way out where a buffer that is written to would not keep its state."""
HELD = frozenset({State.ZERO, State.EVEN, State.ODD, State.COPY, State.SPLIT, State.MEAN, State.FREE})
"""States that new units of a parameter can be put in."""
HELD_BY_FLAGS = frozenset({State.ZERO, State.EVEN, State.COPY, State.FREE})
"""Those that flags and whole numbers can be put in: they have no opposite, no share and no mean."""
COPIES = 'scheme="net2net": copies of old units have values that those have'
"""A way out where new units may leave the domain of a function."""
_ANYWHERE = frozenset({State.FREE, State.EVEN, State.ODD, State.ZERO, State.MEAN})
"""States of units that need not be where old ones are."""
_NOTHING = frozenset({State.ZERO, State.NULL})
_KEPT: Mapping[State, frozenset[State]] = {
    State.NULL: HELD,
    State.SAME: frozenset({State.EVEN, State.COPY, State.MEAN, State.FREE}),
    State.EVEN: frozenset({State.FREE}),
    State.COPY: frozenset({State.FREE}),
    State.MEAN: frozenset({State.FREE}),
}
"""What else new units may have been that are in some state now: more was not taken for granted of them. Zeros and odd
units are not among these: nobody divides by a unit that is zero or odd, but by one that is free."""
_TWINS = frozenset({State.EVEN, State.COPY, State.SAME, State.FREE})
"""What may stand where twins need one value; of free units nothing is expected."""


def prove(dims: DimsSolver, sizes: Mapping[Atom, int], assignment: Assignment) -> Proof | Failure:
    """Prove a growth with these states, or say which step fails."""
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
