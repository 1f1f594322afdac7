"""Chooses for all new units whether their producers or their consumers are zero; the others are free.

A propagation finds for every value the parameters on which its new units depend. At a sum over new units one of the two
sides is chosen to be zero, and at a normalisation the producers get the state that it needs: zeros for rms_norm, means
for layer_norm, both of which it maps to zeros. As zeros change the dependences, propagation is repeated until nothing
changes. The choice is proved afterwards (`fxgrow.proof`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op
from ..dims.axis import Atom
from ..errors import Kind
from ..proof.propagate import Propagation
from ..proof.reasons import MIXED
from ..proof.states import Assignment, Failure, Place, State
from ..rules.domains import Domain
from ..rules.mixing import Mixing
from .dependence import IDLE, Dependence, Mark, live, union, zero_of

UNREAD = "no weight uses the new units, and zeros would get no gradient"
COMPUTED = (
    "the weight that uses the new units is computed, and zeros from which it is computed may not make it zero, or get "
    "no gradient"
)
ZEROED = ("rms_norm", "mean", "norm")
"""Operators that may take new units that are zero, because zeros do not change a sum, or a sum of squares."""
Side = Callable[[Dependence, Dependence], bool]
"""A function (producers, consumers) that returns whether the producers of a sum are to be zero."""


class Restart(Exception):
    """Raised if a producer that was assumed to be free must be zero: choices based on it are discarded, and propagation
    starts again.

    `idle`: these parameters are consumers as well, and have to be zero for that use only.
    """

    def __init__(self, places: frozenset[Place], *, idle: bool = False) -> None:
        super().__init__()
        self.places, self.idle = places, idle


class SidedDomain:
    """A domain whose values are dependences on parameters, and which chooses states at sums and normalisations.

    Args:
        chosen: the states that have been chosen so far; it is updated.
        norms: the state that each kind of normalisation needs.
        zero_producers: returns whether the producers of a sum are to be zero.
        positions: the position of each operator in the program, by identity.
        buffers: indices of values that get no gradient.
        read: returns the places of parameters whose new units are used by weights.
    """

    same: Mark = Dependence()
    zero: Mark = None
    null: Mark = None

    def __init__(
        self,
        chosen: dict[Place, State],
        norms: Mapping[str, State],
        zero_producers: Side,
        positions: Mapping[int, int],
        buffers: Collection[int],
        read: Callable[[], Collection[Place]],
    ) -> None:
        self.chosen = chosen
        self.norms = norms
        self.zero_producers = zero_producers
        self.positions = positions
        self.buffers = buffers
        self.read = read
        self.places: dict[Place, None] = {}
        self.consumers: set[Place] = set()
        """Consumers, which were chosen to be zero for that use only."""
        self.written: set[Place] = set()
        self.failure: Failure | None = None

    def _want(self, support: Dependence, state: State) -> None:
        for place in support.places:
            if self.chosen.get(place) is not State.ZERO:
                self.chosen[place] = state

    def place(self, place: Place) -> Mark:
        """Return the dependence on the parameter itself."""
        self.places[place] = None
        if self.chosen.get(place) is State.ZERO:
            return IDLE if place in self.consumers else None
        return Dependence(frozenset({place}), direct=True)

    def add(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Return the dependence of a sum; parameters that are added to zeros are chosen to be zero too."""
        some = live(states)
        if None in states and some and all(x.direct for x in some):
            for x in some:
                self._want(x, State.ZERO)
            return None
        return union(some) if some else zero_of(states)

    def mul(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Return the dependence of a product, which is zero if a factor is. A product of one weight and buffers depends
        on the weight, which can be zero and still get a gradient."""
        some = live(states)
        if len(some) < len(states):
            return zero_of(states)
        learned = [x for x in some if any(place.value not in self.buffers for place in x.places)]
        return union(learned) if len(learned) == 1 else union(some, linear=sum(bool(x.places) for x in some) < 2)

    def map_units(self, op: Op, states: Sequence[Mark], odd: bool, zero: bool, linear: bool, homogeneous: bool) -> Mark:
        """Return the dependence of a pointwise function, which is zero for zeros if the function is."""
        some = live(states)
        if not some:
            return zero_of(states) if zero else self.same
        return union(some, linear=linear)

    def require(self, op: Op, state: Mark, even: bool, why: str) -> Mark:
        """Return the dependence; the proof checks the requirement."""
        return state

    def within(self, op: Op, state: Mark, domain: Domain) -> Mark:
        """Return the dependence; the proof checks the requirement."""
        return state

    def adapt(self, op: Op, state: Mark) -> None:
        """Do nothing: the adapter drops new units."""

    def missing(self, op: Op, state: Mark) -> Mark:
        """Return zero for the channels that an adapter adds."""
        return self.zero

    def mix(self, op: Op, state: Mark, mixing: Mixing) -> Mark:
        """Choose the state that a normalisation needs, and return zero.

        Raises:
            Restart: producers must be zero.
        """
        wanted = self.norms.get(mixing.kind)
        if mixing.kind == "mean" and state is not None and state.linear:
            wanted = self.norms.get("centre", wanted)
        kind, text = MIXED[mixing.kind]
        if wanted is None and self.failure is None:
            self.failure = Failure(kind, self.positions[id(op)], text)
        if wanted is not None and state is not None and not state.idle:
            self._want(state, wanted)
            if wanted is State.ZERO and state.places:
                lost = kind is Kind.STATISTIC and not state.linear
                if lost and not state.places <= set(self.read()):
                    self.failure = self.failure or Failure(Kind.NO_PROOF, self.positions[id(op)], UNREAD)
                raise Restart(state.places)
        return None

    def centre(self, op: Op, state: Mark) -> Mark:
        """Return zero for new units that are the mean, which has been subtracted."""
        some = live([state])
        means = bool(some) and all(self.chosen.get(place) is State.MEAN for place in some[0].places)
        return None if means else self.add(op, [state, self.same])

    def contract(self, op: Op, factors: Sequence[Mark]) -> None:
        """Choose zeros for the producers or the consumers of a sum.

        Raises:
            Restart: producers must be zero.
        """
        if len(live(factors)) < len(factors):
            return
        sides = [x for x in live(factors) if x.places]
        if not sides:
            kind, text = Kind.NO_PROOF, "the new units add up and nothing can cancel them"
            self.failure = self.failure or Failure(kind, self.positions[id(op)], text)
            return
        consumers = max(reversed(sides), key=lambda x: (x.direct, x.linear))  # the last one of equals
        if not (consumers.direct or consumers.linear):
            self.failure = self.failure or Failure(Kind.NO_PROOF, self.positions[id(op)], COMPUTED)
            return
        producers = next((x for x in sides if x is not consumers), None)
        either = producers is not None and producers.linear and consumers.direct
        if producers is not None and either and self.zero_producers(producers, consumers):
            raise Restart(producers.places)
        self._want(consumers, State.ZERO)
        self.consumers |= consumers.places
        self.written.update(*(x.places for x in sides if x is not consumers))
        if both := self.consumers & self.written:
            raise Restart(frozenset(both), idle=True)

    def merge(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Return the dependence on the parameters of all occurrences."""
        some = live(states)
        return union(some) if some else zero_of(states)

    def keep(self, op: Op, before: Mark, after: Mark) -> None:
        """Choose zeros for a parameter or buffer to which zeros are written."""
        if after is None and before is not None and not before.idle:
            self._want(before, State.ZERO)

    def drawn(self, op: Op, state: Mark, why: str) -> Mark:
        """Return the dependence of a product with random factors, which preserves zeros and their gradients."""
        return union(some) if (some := live([state])) else state

    def only_eval(self, op: Op, why: str) -> None:
        """Do nothing: it does not affect the choice."""


def choose_sides(
    dims: DimsSolver, sizes: Mapping[Atom, int], norms: Mapping[str, State], zero_producers: Side
) -> Assignment | Failure:
    """Choose zeros for one side of every sum, the states that norms need for their producers, and FREE elsewhere.

    Args:
        dims: the axes.
        sizes: new sizes of the growing atoms.
        norms: the state that each kind of normalisation needs; axes of other normalisations may not grow.
        zero_producers: returns whether the producers of a sum are to be zero; otherwise the consumers are.
    """
    positions = {id(op): i for i, op in enumerate(dims.program.ops)}
    chosen: dict[Place, State] = {}
    read = cache(lambda: _read(dims, sizes, positions))
    needed: dict[Place, State] = {}
    consumers: set[Place] = set()
    idle = frozenset[Place]()
    while True:
        before = dict(chosen)
        domain = SidedDomain(chosen, norms, zero_producers, positions, dims.program.buffers, read)
        domain.consumers = consumers
        try:
            Propagation(dims, sizes, domain).run()
        except Restart as again:
            needed.update(dict.fromkeys(again.places, State.ZERO))
            idle = idle | again.places if again.idle else idle - again.places
            consumers.clear()
            consumers.update(idle)
            chosen.clear()
            chosen.update(needed)
        if domain.failure is not None:
            return domain.failure
        if chosen == before:
            return {place: chosen.get(place, State.FREE) for place in domain.places}


class _Observer(SidedDomain):
    """A domain that finds the parameters whose new units are used by weights, so that as zeros they get a gradient."""

    def __init__(self, positions: Mapping[int, int]) -> None:
        super().__init__({}, {}, lambda _, __: False, positions, frozenset(), frozenset)
        self.found: set[Place] = set()

    def mix(self, op: Op, state: Mark, mixing: Mixing) -> Mark:
        """Return the dependence; no state is chosen."""
        return state

    def mul(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Return the dependence on all factors that are not zero."""
        return union(some) if (some := live(states)) else None

    def contract(self, op: Op, factors: Sequence[Mark]) -> None:
        """Record the parameters of both sides of a sum of products, as each is used by the other."""
        sides = [x for x in live(factors) if x.places]
        self.found.update(*(x.places for x in sides if x.linear and len(sides) > 1))


def _read(dims: DimsSolver, sizes: Mapping[Atom, int], positions: Mapping[int, int]) -> Collection[Place]:
    """Return the places of parameters whose new units are used by weights."""
    observer = _Observer(positions)
    Propagation(dims, sizes, observer).run()
    return observer.found
