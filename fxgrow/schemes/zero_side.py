"""Choosing sides: new units are zero where they are written or where they are read; the other side is free.

One walk collects, for every value, which parameters its new units depend on. A sum over them then says which side to
zero, and a normalisation what it needs: zeros for rms_norm, means for layer_norm, both of which leave it as zeros.
What is set to zero changes the walk, so it is repeated until nothing is added. The proof is not made here.
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

UNREAD = "nothing reads the new units with weights, and zeros would get no gradient where they are written"
COMPUTED = "what reads the new units is computed, so that zeros it is computed from may become others, or never learn"
ZEROED = ("rms_norm", "mean", "norm")
"""What takes new units of zeros: they leave a sum of squares, or any sum, as it is."""
Side = Callable[[Dependence, Dependence], bool]
"""Whether to zero the writers of two sides of a sum (writers, readers)."""


class Restart(Exception):
    """Writers are to be zero where anything was taken for granted, so all that followed from that is void. `idle`: they
    read as well, and need it there only."""

    def __init__(self, places: frozenset[Place], *, idle: bool = False) -> None:
        super().__init__()
        self.places, self.idle = places, idle


class SidedDomain:
    """Supports, and the states that follow from what they meet."""

    same: Mark = Dependence()
    zero: Mark = None
    null: Mark = None

    def __init__(
        self,
        chosen: dict[Place, State],
        norms: Mapping[str, State],
        writers: Side,
        positions: Mapping[int, int],
        buffers: Collection[int],
        read: Callable[[], Collection[Place]],
    ) -> None:
        """`buffers`: values that do not learn. `read`: parameters whose new units are read with weights somewhere."""
        self.chosen = chosen
        self.norms = norms
        self.writers = writers
        self.positions = positions
        self.buffers = buffers
        self.read = read
        self.places: dict[Place, None] = {}
        self.readers: set[Place] = set()
        """Parameters that are zero where they read, for which alone they were chosen."""
        self.written: set[Place] = set()
        self.failure: Failure | None = None

    def _want(self, support: Dependence, state: State) -> None:
        for place in support.places:
            if self.chosen.get(place) is not State.ZERO:
                self.chosen[place] = state

    def place(self, place: Place) -> Mark:
        """Its own support."""
        self.places[place] = None
        if self.chosen.get(place) is State.ZERO:
            return IDLE if place in self.readers else None
        return Dependence(frozenset({place}), direct=True)

    def add(self, op: Op, states: Sequence[Mark]) -> Mark:
        """A parameter that is added to zeros becomes zero too, if they have to be zero."""
        some = live(states)
        if None in states and some and all(x.direct for x in some):
            for x in some:
                self._want(x, State.ZERO)
            return None
        return union(some) if some else zero_of(states)

    def mul(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Zero wins. Of a weight and of buffers it is the weight that can be zero, and still learns."""
        some = live(states)
        if len(some) < len(states):
            return zero_of(states)
        learned = [x for x in some if any(place.value not in self.buffers for place in x.places)]
        return union(learned) if len(learned) == 1 else union(some, linear=sum(bool(x.places) for x in some) < 2)

    def map_units(self, op: Op, states: Sequence[Mark], odd: bool, zero: bool, linear: bool, homogeneous: bool) -> Mark:
        """Zeros stay only where the function keeps them."""
        some = live(states)
        if not some:
            return zero_of(states) if zero else self.same
        return union(some, linear=linear)

    def require(self, op: Op, state: Mark, even: bool, why: str) -> Mark:
        """The proof will see."""
        return state

    def within(self, op: Op, state: Mark, domain: Domain) -> Mark:
        """The proof will see."""
        return state

    def adapt(self, op: Op, state: Mark) -> None:
        """New units stay outside an adapter."""

    def missing(self, op: Op, state: Mark) -> Mark:
        """Zeros."""
        return self.zero

    def mix(self, op: Op, state: Mark, mixing: Mixing) -> Mark:
        """What a normalisation needs."""
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
        """Means become zero."""
        some = live([state])
        means = bool(some) and all(self.chosen.get(place) is State.MEAN for place in some[0].places)
        return None if means else self.add(op, [state, self.same])

    def contract(self, op: Op, factors: Sequence[Mark]) -> None:
        """One side is zero."""
        if len(live(factors)) < len(factors):
            return
        sides = [x for x in live(factors) if x.places]
        if not sides:
            kind, text = Kind.NO_PROOF, "the new units add up and nothing can cancel them"
            self.failure = self.failure or Failure(kind, self.positions[id(op)], text)
            return
        readers = max(reversed(sides), key=lambda x: (x.direct, x.linear))  # of equals the last
        if not (readers.direct or readers.linear):
            self.failure = self.failure or Failure(Kind.NO_PROOF, self.positions[id(op)], COMPUTED)
            return
        writers = next((x for x in sides if x is not readers), None)
        either = writers is not None and writers.linear and readers.direct
        if writers is not None and either and self.writers(writers, readers):
            raise Restart(writers.places)
        self._want(readers, State.ZERO)
        self.readers |= readers.places
        self.written.update(*(x.places for x in sides if x is not readers))
        if both := self.readers & self.written:
            raise Restart(frozenset(both), idle=True)

    def merge(self, op: Op, states: Sequence[Mark]) -> Mark:
        """Of all of them."""
        some = live(states)
        return union(some) if some else zero_of(states)

    def keep(self, op: Op, before: Mark, after: Mark) -> None:
        """Zeros are found where zeros are left."""
        if after is None and before is not None and not before.idle:
            self._want(before, State.ZERO)

    def drawn(self, op: Op, state: Mark, why: str) -> Mark:
        """Random factors let zeros through, with their gradients."""
        return union(some) if (some := live([state])) else state

    def only_eval(self, op: Op, why: str) -> None:
        """No matter here."""


def choose_sides(
    dims: DimsSolver, sizes: Mapping[Atom, int], norms: Mapping[str, State], writers: Side
) -> Assignment | Failure:
    """Zeros on one side of every sum, what norms need before them, and anything elsewhere.

    Args:
        dims: the axes.
        sizes: new sizes of the growing atoms.
        norms: the state that each kind of normalisation is to receive; of those not named nothing may grow.
        writers: whether the writing side of a sum is to be zero; else the reading side is.
    """
    positions = {id(op): i for i, op in enumerate(dims.program.ops)}
    chosen: dict[Place, State] = {}
    read = cache(lambda: _read(dims, sizes, positions))
    needed: dict[Place, State] = {}
    readers: set[Place] = set()
    idle = frozenset[Place]()
    while True:
        before = dict(chosen)
        domain = SidedDomain(chosen, norms, writers, positions, dims.program.buffers, read)
        domain.readers = readers
        try:
            Propagation(dims, sizes, domain).run()
        except Restart as again:
            needed.update(dict.fromkeys(again.places, State.ZERO))
            idle = idle | again.places if again.idle else idle - again.places
            readers.clear()
            readers.update(idle)
            chosen.clear()
            chosen.update(needed)
        if domain.failure is not None:
            return domain.failure
        if chosen == before:
            return {place: chosen.get(place, State.FREE) for place in domain.places}


class _Observer(SidedDomain):
    """Chooses nothing, and notes what is read with weights, through which zeros would get a gradient."""

    def __init__(self, positions: Mapping[int, int]) -> None:
        super().__init__({}, {}, lambda _, __: False, positions, frozenset(), frozenset)
        self.found: set[Place] = set()

    def mix(self, op: Op, state: Mark, mixing: Mixing) -> Mark:
        """Anything may follow."""
        return state

    def mul(self, op: Op, states: Sequence[Mark]) -> Mark:
        """A free factor lets zeros through, with their gradients."""
        return union(some) if (some := live(states)) else None

    def contract(self, op: Op, factors: Sequence[Mark]) -> None:
        """Of two sides each reads the other."""
        sides = [x for x in live(factors) if x.places]
        self.found.update(*(x.places for x in sides if x.linear and len(sides) > 1))


def _read(dims: DimsSolver, sizes: Mapping[Atom, int], positions: Mapping[int, int]) -> Collection[Place]:
    """Parameters whose new units are read with weights somewhere."""
    observer = _Observer(positions)
    Propagation(dims, sizes, observer).run()
    return observer.found
