"""Choosing parities: signs are bits, products add them, so all demands together are linear equations over GF(2).

Each occurrence of a growing atom in a parameter is an unknown bit (0 even, 1 odd). A sum of volumes demands equal
bits, a function that is not odd demands 0, a contraction demands 1. Where the demands contradict each other, a reader
among them is set to zero, which satisfies its contraction whatever the other side is.

Copies obey the same equations (0 copied, 1 split among the copies), but for functions that are odd without being
linear, or homogeneous without being odd (relu), and for normalisations, which copies pass if every unit has equally
many.
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
    """The bits in `form` add up to `value`; `readers` are parameters that could be zero instead."""

    form: int
    value: int
    op: int
    text: str
    readers: tuple[Place, ...] = ()


Parity = int | None
"""The bits whose sum is a state's sign; None is zero."""
NULL = -1
"""Zero at old units too: halves, copies and shares at once."""
_ZEROS = (None, NULL)


class ParityDomain:
    """States with unknown signs; demands are collected."""

    same: Parity = 0
    zero: Parity = None
    null: Parity = NULL
    one = 1
    """A sign that is known to be odd: bit 0, demanded to be set."""

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
        """Whether all units are new, so that statistics may be anything."""
        self.buffers = buffers
        """Values that do not learn: of a weight under a mask it is the weight that changes its sign."""
        self.flags = flags
        """Values that hold flags or whole numbers, which have no sign and cannot be shared out."""
        self.places: dict[Place, int] = {}
        self.rows: list[Place] = []
        self.demands: list[Demand] = [Demand(self.one, 1, 0, "")]
        self.failure: Failure | None = None
        self.summed: set[Place] = set()
        """Parameters that some contraction reads directly."""

    def _fail(self, op: Op, text: str, kind: Kind = Kind.NO_PROOF, hint: str = "") -> None:
        if self.failure is None:
            self.failure = Failure(kind, self.positions[id(op)], text, hint)

    def _demand(self, op: Op, form: int, value: int, text: str, readers: tuple[Place, ...] = ()) -> None:
        if form or value:
            self.demands.append(Demand(form, value, self.positions[id(op)], text, readers))

    def place(self, place: Place) -> Parity:
        """One unknown bit, unless it has been set to zero, or is known to be 0."""
        if place in self.zeros:
            return None
        bit = self.places.setdefault(place, len(self.places) + 1)
        if bit == len(self.rows) + 1:
            self.rows.append(place)
        return 0 if place.value in self.flags else 1 << bit

    def add(self, op: Op, states: Sequence[Parity]) -> Parity:
        """All signs equal; zero is neutral."""
        some = [x for x in states if x is not None and x != NULL]
        for x in some[1:]:
            self._demand(op, some[0] ^ x, 0, "opposite halves would be added to equal ones")
        return some[0] if some else None if None in states else NULL

    def mul(self, op: Op, states: Sequence[Parity]) -> Parity:
        """Signs add up; zero wins."""
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
        """Even, unless the function is odd; copied, unless it is linear, or homogeneous and all are shared out."""
        some = [x for x in states if x is not None and x != NULL]
        if not some:
            return 0 if not zero else None if None in states else NULL
        if (linear if self.copies else odd) and len(states) == 1:
            return some[0]
        if self.copies and homogeneous and None not in states:
            return self.add(op, some)
        for x in some:
            self._demand(op, x, 0, f"{op.name} keeps equal halves only")
        return 0

    def require(self, op: Op, state: Parity, even: bool, why: str) -> Parity:
        """Not zero, perhaps even."""
        if state in _ZEROS:
            self._fail(op, f"a block of zeros may not enter here: {why}")
            return 0
        if even:
            assert state is not None
            self._demand(op, state, 0, why)
        return state

    def within(self, op: Op, state: Parity, domain: Domain) -> Parity:
        """The proof will see."""
        return state

    def adapt(self, op: Op, state: Parity) -> None:
        """Equal halves cancel in an adapter."""
        if state is not None and state != NULL:
            self._demand(op, state, 0, "r(left) - r(right) must vanish")

    def missing(self, op: Op, state: Parity) -> Parity:
        """Copies beside copies, else zeros."""
        return 0 if self.copies and state not in _ZEROS else None

    def mix(self, op: Op, state: Parity, mixing: Mixing) -> Parity:
        """Halves change the statistics of what was there; copies do not, if every unit has equally many."""
        kind, text = MIXED[mixing.kind]
        if self.fresh and not self.copies and state is not None and not mixing.degenerate:
            self._demand(op, state, 0, "equal halves see the same statistics")
            return 0
        if not self.copies:
            self._fail(op, text, kind)
        elif not mixing.even and mixing.kind != "extremum":
            self._fail(op, text, kind, UNIFORM)
        elif mixing.kind in ("norm", "cosine"):
            return 0  # of copies and of shares it is a known multiple
        elif state is not None and state != NULL:
            self._demand(op, state, 0, "a normalisation needs copies")
        if mixing.gain is not None and self.copies:  # which may hold the share of each copy
            return self.place(share_of(mixing.gain))
        return self.one if mixing.kind == "softmax" else 0

    def centre(self, op: Op, state: Parity) -> Parity:
        """As a sum with something that is the same for all units."""
        return self.add(op, [state, self.same])

    def contract(self, op: Op, factors: Sequence[Parity]) -> None:
        """The sign of the product is odd."""
        if NULL in factors:
            return
        zeros = [x for x in factors if x is None]
        if len(zeros) > 1:
            self._fail(op, "both sides of the sum are zero: no gradient would ever reach the new units", Kind.DEAD)
        if zeros:
            return
        form, readers = 0, []
        for x in factors:
            assert x is not None
            form ^= x
            readers += self._reader(x)
        readers = [r for r in readers if len(factors) > 1]
        self.summed.update(readers)
        readers = [r for r in readers if r.axis != SHARE]
        self._demand(op, form, 1, "the new units add up and nothing can cancel them", tuple(readers))

    def _reader(self, form: int) -> list[Place]:
        """The parameter that a factor of a sum is, or is the product of with buffers; none if it is anything else."""
        places = [self.rows[bit - 1] for bit in range(1, form.bit_length()) if form >> bit & 1] if not form & 1 else []
        learned = [place for place in places if place.value not in self.buffers]
        return places if len(places) == 1 else learned if len(learned) == 1 else []

    def merge(self, op: Op, states: Sequence[Parity]) -> Parity:
        """As a sum, but that zeros are no copies."""
        if self.copies and None in states and any(x not in _ZEROS for x in states):
            self._fail(op, "zero and non-zero blocks run together")
        return self.add(op, states)

    def keep(self, op: Op, before: Parity, after: Parity) -> None:
        """The same sign, or zeros before and after."""
        if after == NULL or (before in _ZEROS and after is None):
            return
        if before is None or before == NULL:
            self._fail(op, f"{stored_name(op)}, into which the model writes, would not stay zero")
        elif after is None:
            text = f"{stored_name(op)} is overwritten with zeros"
            alone = before.bit_count() == 1 and before != self.one
            places = (self.rows[before.bit_length() - 2],) if alone else ()
            self.demands.append(Demand(0, 1, self.positions[id(op)], text, places))
        else:
            text = f"{stored_name(op)}, into which the model writes, must keep equal or opposite halves as they are"
            self._demand(op, before ^ after, 0, text)

    def drawn(self, op: Op, state: Parity, why: str) -> Parity:
        """Halves and copies draw different numbers."""
        if state not in _ZEROS:
            self._fail(op, why, hint=DRAWN)
        return state

    def only_eval(self, op: Op, why: str) -> None:
        """No matter here."""


def choose_parities(dims: DimsSolver, sizes: Mapping[Atom, int], *, copies: bool = False) -> Assignment | Failure:
    """Even writers, odd readers, zero where the demands contradict each other; or copied writers, split readers."""
    low, high = (State.COPY, State.SPLIT) if copies else (State.EVEN, State.ODD)
    positions = {id(op): i for i, op in enumerate(dims.program.ops)}
    zeros: frozenset[Place] = frozenset()
    first: Failure | None = None
    unlearned = {"buffers": dims.program.buffers, "flags": flags(dims.program)}
    while True:
        domain = ParityDomain(zeros, positions, copies=copies, fresh=dims.fresh, **unlearned)
        Propagation(dims, sizes, domain).run()
        if domain.failure is not None and first is not None:  # zeros were only a way out; what they came for counts
            return Failure(first.kind, first.op, f"{first.text}; nor will zeros do: {domain.failure.text}")
        if domain.failure is not None:
            return domain.failure
        solution = _eliminate(domain.demands, _mask(domain))
        if isinstance(solution, dict):
            states = {p: high if solution.get(i, 0) else low for p, i in domain.places.items()}
            return {**states, **dict.fromkeys(zeros, State.ZERO)}
        worst = next((d for d in reversed(solution) if d.value), solution[-1])
        first = first or Failure(Kind.NO_PROOF, worst.op, worst.text)
        culprit = next((d for d in reversed(solution) if d.readers), None)
        if culprit is None:
            return Failure(Kind.NO_PROOF, worst.op, worst.text)
        zeros |= {culprit.readers[-1]}


def _mask(domain: ParityDomain) -> int:
    return sum(1 << i for place, i in domain.places.items() if place in domain.summed)


def _eliminate(demands: Sequence[Demand], readers: int) -> dict[int, int] | list[Demand]:
    """Solve the equations, unknowns that are not needed set to 0; or return demands that contradict each other.

    Readers are eliminated first, so that writers stay free, hence even.
    """
    rows: dict[int, tuple[int, int, int]] = {}
    """By pivot, which no other row has."""
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
        preferred = form & readers or form
        pivot = preferred.bit_length() - 1
        bit = 1 << pivot
        for other, (f, v, u) in rows.items():
            if f & bit:
                rows[other] = (f ^ form, v ^ value, u ^ used)
        rows[pivot] = (form, value, used)
        pivots |= bit
    return {pivot: value for pivot, (_, value, _) in rows.items()}
