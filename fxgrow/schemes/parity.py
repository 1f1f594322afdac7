"""Chooses the signs of pairs of new units, as the solution of linear equations over GF(2).

Each occurrence of a growing atom in a parameter is an unknown bit (0 for even, 1 for odd), and products add bits. A sum
of tensors requires equal bits, a function that is not odd requires 0, and a sum over new units requires 1. If the
equations contradict each other, a consumer among them is set to zero, which satisfies its sum whatever the producer is.

Copies satisfy the same equations (0 for copied, 1 for split among the copies), except for functions that are odd but
not linear, or homogeneous but not odd (relu), and for normalisations, which are possible if every unit is copied
equally often.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

from ..analysis.flags import flags
from ..analysis.solver import DimsSolver
from ..capture.program.program import Op
from ..dims.axis import Atom
from ..errors import Kind
from ..proof.propagate import Propagation
from ..proof.reasons import DRAWN, MIXED, UNIFORM, stored_name
from ..proof.states import SHARE, Assignment, Failure, Place, State, share_of
from ..rules.domains import Domain
from ..rules.mixing import Mixing


@dataclass(frozen=True, slots=True)
class Demand:
    """A linear equation over GF(2): the sum of the bits in `form` is `value`."""

    form: int
    value: int
    op: int
    """Position of the operator that requires it."""
    text: str
    """Why it is required, for messages."""
    consumers: tuple[Place, ...] = ()
    """Consumers that could be zero instead."""


Parity = int | None
"""The unknown sign of new units, as the set of bits whose sum it is; None for zero."""
NULL = -1
"""The parity of operands that are zero at old units too, which have all states at once."""
_ZEROS = (None, NULL)


class ParityDomain:
    """A domain whose values are unknown signs, and which collects the equations that they must satisfy.

    Args:
        zeros: places whose state is zero.
        positions: the position of each operator in the program, by identity.
        copies: choose copied and split units instead of even and odd ones.
        fresh: the program is a new block, in which statistics may change because all units are new.
        buffers: indices of values that get no gradient. In a product of a weight and a mask, the weight is the one
            whose sign can be chosen.
        flags: indices of boolean and integer tensors, whose entries cannot be negated or divided.
    """

    same: Parity = 0
    zero: Parity = None
    null: Parity = NULL
    one = 1
    """The parity of operands that are odd: bit 0, which an equation sets to 1."""

    def __init__(
        self,
        zeros: frozenset[Place],
        positions: Mapping[int, int],
        *,
        copies: bool = False,
        fresh: bool = False,
        buffers: Collection[int] = (),
        flags: Container[int] = (),
    ) -> None:
        self.zeros = zeros
        self.positions = positions
        self.copies = copies
        self.fresh = fresh
        self.buffers = buffers
        self.flags = flags
        self.places: dict[Place, int] = {}
        self.rows: list[Place] = []
        self.demands: list[Demand] = [Demand(self.one, 1, 0, "")]
        self.failure: Failure | None = None
        self.summed: set[Place] = set()
        """Parameters that are direct operands of a sum of products."""

    def _fail(self, op: Op, text: str, kind: Kind = Kind.NO_PROOF, hint: str = "") -> None:
        if self.failure is None:
            self.failure = Failure(kind, self.positions[id(op)], text, hint)

    def _demand(self, op: Op, form: int, value: int, text: str, consumers: tuple[Place, ...] = ()) -> None:
        if form or value:
            self.demands.append(Demand(form, value, self.positions[id(op)], text, consumers))

    def place(self, place: Place) -> Parity:
        """Return a new unknown bit, or zero, or for boolean and integer tensors 0."""
        if place in self.zeros:
            return None
        bit = self.places.setdefault(place, len(self.places) + 1)
        if bit == len(self.rows) + 1:
            self.rows.append(place)
        return 0 if place.value in self.flags else 1 << bit

    def add(self, op: Op, states: Sequence[Parity]) -> Parity:
        """Return the sign of a sum, and require that all signs in it are equal; zeros do not matter."""
        some = [x for x in states if x is not None and x != NULL]
        for x in some[1:]:
            self._demand(op, some[0] ^ x, 0, "opposite halves would be added to equal ones")
        return some[0] if some else None if None in states else NULL

    def mul(self, op: Op, states: Sequence[Parity]) -> Parity:
        """Return the sign of a product, which is the sum of the bits, or zero if a factor is."""
        if NULL in states:
            return NULL
        form = 0
        for x in states:
            if x is None:
                return None
            form ^= x
        return form

    def map_units(
        self, op: Op, states: Sequence[Parity], odd: bool, zero: bool, linear: bool, homogeneous: bool
    ) -> Parity:
        """Return the sign after a pointwise function: that of the operand for an odd function, otherwise even. For
        copies the function must be linear, or homogeneous with operands that are all split."""
        some = [x for x in states if x is not None and x != NULL]
        if not some:
            return 0 if not zero else None if None in states else NULL
        if (linear if self.copies else odd) and len(states) == 1:
            return some[0]
        if self.copies and homogeneous and None not in states:
            return self.add(op, some)
        for x in some:
            self._demand(op, x, 0, f"{op.name} preserves equal halves only")
        return 0

    def require(self, op: Op, state: Parity, even: bool, why: str) -> Parity:
        """Require that new units are not zero, and if `even` that they are even."""
        if state in _ZEROS:
            self._fail(op, f"new units that are zero are not possible here: {why}")
            return 0
        if even:
            assert state is not None
            self._demand(op, state, 0, why)
        return state

    def within(self, op: Op, state: Parity, domain: Domain) -> Parity:
        """Return the sign; the proof checks the requirement."""
        return state

    def adapt(self, op: Op, state: Parity) -> None:
        """Require that new units of a skip path are even, so that they cancel in the adapter."""
        if state is not None and state != NULL:
            self._demand(op, state, 0, "r(left) - r(right) must vanish")

    def missing(self, op: Op, state: Parity) -> Parity:
        """Return the parity of the channels that an adapter adds: copied beside copies, otherwise zero."""
        return 0 if self.copies and state not in _ZEROS else None

    def mix(self, op: Op, state: Parity, mixing: Mixing) -> Parity:
        """Return the parity after a normalisation, which is possible for copies if every unit has equally many, and for
        pairs in a new block only."""
        kind, text = MIXED[mixing.kind]
        if self.fresh and not self.copies and state is not None and not mixing.degenerate:
            self._demand(op, state, 0, "only equal halves have equal statistics")
            return 0
        if not self.copies:
            self._fail(op, text, kind)
        elif not mixing.even and mixing.kind != "extremum":
            self._fail(op, text, kind, UNIFORM)
        elif mixing.kind in ("norm", "cosine"):
            return 0  # for copies and for split units it changes by a known factor
        elif state is not None and state != NULL:
            self._demand(op, state, 0, "a normalisation needs copies")
        if mixing.gain is not None and self.copies:  # it may be divided by the number of copies
            return self.place(share_of(mixing.gain))
        return self.one if mixing.kind == "softmax" else 0

    def centre(self, op: Op, state: Parity) -> Parity:
        """Return the sign of a sum with an operand that is the same for all units."""
        return self.add(op, [state, self.same])

    def contract(self, op: Op, factors: Sequence[Parity]) -> None:
        """Require that the sign of a product that is summed over new units is odd."""
        if NULL in factors:
            return
        zeros = [x for x in factors if x is None]
        if len(zeros) > 1:
            self._fail(op, "both sides of the sum are zero: no gradient would ever reach the new units", Kind.DEAD)
        if zeros:
            return
        form, consumers = 0, []
        for x in factors:
            assert x is not None
            form ^= x
            consumers += self._consumer(x)
        consumers = [r for r in consumers if len(factors) > 1]
        self.summed.update(consumers)
        consumers = [r for r in consumers if r.axis != SHARE]
        self._demand(op, form, 1, "the new units add up and nothing can cancel them", tuple(consumers))

    def _consumer(self, form: int) -> list[Place]:
        """Return the parameter that is a factor of a sum of products, alone or multiplied by buffers, if any."""
        places = [self.rows[bit - 1] for bit in range(1, form.bit_length()) if form >> bit & 1] if not form & 1 else []
        learned = [place for place in places if place.value not in self.buffers]
        return places if len(places) == 1 else learned if len(learned) == 1 else []

    def merge(self, op: Op, states: Sequence[Parity]) -> Parity:
        """Return the sign of a sum; but zeros cannot be merged with copies."""
        if self.copies and None in states and any(x not in _ZEROS for x in states):
            self._fail(op, "new units that are zero cannot be told apart from others that are not")
        return self.add(op, states)

    def keep(self, op: Op, before: Parity, after: Parity) -> None:
        """Require that the sign before a call is that after it, or both are zero."""
        if after == NULL or (before in _ZEROS and after is None):
            return
        if before is None or before == NULL:
            self._fail(op, f"{stored_name(op)}, to which the model writes, would not stay zero")
        elif after is None:
            text = f"{stored_name(op)} is overwritten with zeros"
            alone = before.bit_count() == 1 and before != self.one
            places = (self.rows[before.bit_length() - 2],) if alone else ()
            self.demands.append(Demand(0, 1, self.positions[id(op)], text, places))
        else:
            text = f"{stored_name(op)}, to which the model writes, must keep equal or opposite halves as they are"
            self._demand(op, before ^ after, 0, text)

    def drawn(self, op: Op, state: Parity, why: str) -> Parity:
        """Fail, unless new units are zero: paired units and copies draw different numbers."""
        if state not in _ZEROS:
            self._fail(op, why, hint=DRAWN)
        return state

    def only_eval(self, op: Op, why: str) -> None:
        """Do nothing: it does not affect the choice."""


def choose_parities(dims: DimsSolver, sizes: Mapping[Atom, int], *, copies: bool = False) -> Assignment | Failure:
    """Choose even producers and odd consumers, and zeros where the equations contradict each other.

    Args:
        dims: the axes.
        sizes: new sizes of the growing atoms.
        copies: choose copied producers and split consumers instead.
    """
    low, high = (State.COPY, State.SPLIT) if copies else (State.EVEN, State.ODD)
    positions = {id(op): i for i, op in enumerate(dims.program.ops)}
    zeros: frozenset[Place] = frozenset()
    first: Failure | None = None
    unlearned = {"buffers": dims.program.buffers, "flags": flags(dims.program)}
    while True:
        domain = ParityDomain(zeros, positions, copies=copies, fresh=dims.fresh, **unlearned)
        Propagation(dims, sizes, domain).run()
        if domain.failure is not None and first is not None:  # report the contradiction that the zeros should resolve
            return Failure(first.kind, first.op, f"{first.text}; zeros are not possible: {domain.failure.text}")
        if domain.failure is not None:
            return domain.failure
        solution = _eliminate(domain.demands, _mask(domain))
        if isinstance(solution, dict):
            states = {p: high if solution.get(i, 0) else low for p, i in domain.places.items()}
            return {**states, **dict.fromkeys(zeros, State.ZERO)}
        worst = next((d for d in reversed(solution) if d.value), solution[-1])
        first = first or Failure(Kind.NO_PROOF, worst.op, worst.text)
        culprit = next((d for d in reversed(solution) if d.consumers), None)
        if culprit is None:
            return Failure(Kind.NO_PROOF, worst.op, worst.text)
        zeros |= {culprit.consumers[-1]}


def _mask(domain: ParityDomain) -> int:
    return sum(1 << i for place, i in domain.places.items() if place in domain.summed)


def _eliminate(demands: Sequence[Demand], consumers: int) -> dict[int, int] | list[Demand]:
    """Solve the equations, with 0 for free unknowns, or return equations that contradict each other.

    Consumers are eliminated first, so that producers are free unknowns, and thus even.
    """
    rows: dict[int, tuple[int, int, int]] = {}
    """The rows by pivot; no other row has that bit."""
    pivots = 0
    for number, demand in enumerate(demands):
        form, value, used = demand.form, demand.value, 1 << number
        present = form & pivots
        while present:
            pivot = present.bit_length() - 1
            present ^= 1 << pivot
            f, v, u = rows[pivot]
            form, value, used = form ^ f, value ^ v, used ^ u
        if not form:
            if value:
                return [d for i, d in enumerate(demands) if used >> i & 1]
            continue
        preferred = form & consumers or form
        pivot = preferred.bit_length() - 1
        bit = 1 << pivot
        for other, (f, v, u) in rows.items():
            if f & bit:
                rows[other] = (f ^ form, v ^ value, u ^ used)
        rows[pivot] = (form, value, used)
        pivots |= bit
    return {pivot: value for pivot, (_, value, _) in rows.items()}
