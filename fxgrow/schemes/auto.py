"""Auto: for every set of units the first scheme that proves, R2R before all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..analysis.dependent_sets import classes, connected
from ..dims.axis import Atom, atoms
from ..errors import Kind, usage
from ..proof.both_modes import prove_in_modes
from ..proof.states import Assignment, Failure, Problem, Proof, Scheme
from .mean import Mean
from .morphism import Morphism
from .net2net import Net2Net
from .r2r import R2R
from .sharing import Part, shared
from .zero import Zero

ORDER: tuple[Scheme, ...] = (R2R(), Zero(), Mean(), Morphism(), Net2Net())
"""R2R trains every new weight from the first step; zeros and means need no equal copies; copies pass every norm."""


@dataclass(frozen=True, slots=True)
class Served:
    """Units for which states were found: by which scheme, and why not by R2R; empty if it is R2R."""

    atoms: tuple[Atom, ...]
    states: Assignment
    proof: Proof
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Auto:
    """R2R where it proves, else zeros (rms_norm streams), means (layer_norm streams), or uniform copies."""

    name: str = "auto"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """All at once if one scheme serves all, else each set of units by itself."""
        found = self.chosen(problem)
        return found if isinstance(found, Failure) else found[0]

    def chosen(self, problem: Problem) -> tuple[Assignment, Proof, Mapping[str, str]] | Failure:
        """The states, their proof, and for sets of units that R2R cannot serve the scheme that was taken, and why."""
        served: list[Served] = []
        for found, lost in self.each(problem):
            if lost:
                return lost[0]
            served += found
        states = shared(problem, [Part(some.atoms, some.states) for some in served])
        proof = served[0].proof if len(served) == 1 else prove_in_modes(problem, states)
        reasons = {_label(problem, some.atoms): some.reason for some in served if some.reason}
        return proof if isinstance(proof, Failure) else (states, proof, reasons)

    def each(self, problem: Problem) -> Iterator[Answer]:
        """The states of each set of units by itself, or why there are none: found once for each set and its sizes."""
        known = _known(problem)
        for group in connected(problem.dims, problem.sizes):
            yield known.served(replace(problem, sizes={a: problem.sizes[a] for a in group}))


def proved(scheme: Scheme, problem: Problem) -> tuple[Assignment, Proof] | Failure:
    """The states that a scheme chooses, if they prove."""
    chosen = scheme.choose(problem)
    if isinstance(chosen, Failure):
        return chosen
    if not isinstance(chosen, Mapping):
        what = f"scheme {scheme.name} chose {type(chosen).__name__}, and not states by place"
        raise usage(Kind.BAD_OPTION, what, hint="Scheme.choose returns a mapping from Place to State, or a Failure")
    proof = prove_in_modes(problem, chosen)
    return proof if isinstance(proof, Failure) else (chosen, proof)


Answer = tuple[list[Served], list[Failure]]
"""The classes of units of a set that can grow together, and why the others cannot."""
Key = tuple[bool, tuple[bool, ...], frozenset[tuple[Atom, int]]]


@dataclass(slots=True)
class Known:
    """What has been found out of growths of one model, kept as long as its analysis."""

    proofs: dict[tuple[Scheme, Key], tuple[Assignment, Proof] | Failure] = field(default_factory=dict)
    sets: dict[Key, Answer] = field(default_factory=dict)

    def proved(self, scheme: Scheme, problem: Problem) -> tuple[Assignment, Proof] | Failure:
        """The states that a scheme of this package chooses, if they prove."""
        key = scheme, _key(problem)
        if key not in self.proofs:
            self.proofs[key] = proved(scheme, problem)
        return self.proofs[key]

    def served(self, problem: Problem) -> Answer:
        """States for a set of units: those of one scheme, else each class of units by its own."""
        key = _key(problem)
        if key not in self.sets:
            found = self.by_one(problem)
            self.sets[key] = ([found], []) if isinstance(found, Served) else self._by_several(problem, found)
        return self.sets[key]

    def by_one(self, problem: Problem) -> Served | Failure:
        """The states of the first scheme that serves all units."""
        failures: list[Failure] = []
        limited: tuple[Scheme, Assignment, Proof] | None = None
        for scheme in ORDER:
            found = self.proved(scheme, problem)
            if isinstance(found, Failure):
                failures.append(found)
            elif found[1].limited:
                limited = limited or (scheme, *found)
                failures.append(Failure(Kind.NO_PROOF, 0, f"in training mode {found[1].limited}"))
            else:
                limited = scheme, *found
                break
        if limited is None:
            hint = next((f.hint for f in failures if f.hint), "")
            return replace(failures[0], hint=hint, atoms=frozenset(problem.sizes))
        scheme, chosen, proof = limited
        reason = "" if scheme is ORDER[0] else f"{scheme.name}, because r2r cannot: {failures[0].text}"
        return Served(tuple(problem.sizes), chosen, proof, reason)

    def _by_several(self, problem: Problem, failure: Failure) -> Answer:
        """Each class of units by its own scheme, those that need each other together; what is proved is their union."""
        parts = classes(problem.dims, problem.sizes)
        if len(parts) == 1:
            return [], [failure]
        served: list[Served] = []
        lost: list[Failure] = []
        for some in parts:
            found = self.by_one(_part(problem, some))
            served += [found] if isinstance(found, Served) else []
            lost += [found] if isinstance(found, Failure) else []
        if 1 < len(lost) < len(parts):
            together = self.by_one(_part(problem, [a for f in lost for a in f.atoms]))
            if isinstance(together, Served):
                served, lost = [*served, together], []
        if not served or not isinstance(_united(problem, served), Failure):
            return served, lost
        kept: list[Served] = []
        for one in served:
            proof = _united(problem, [*kept, one])
            if isinstance(proof, Failure):
                lost.append(replace(proof, atoms=frozenset(one.atoms)))
            else:
                kept.append(one)
        return kept, lost


def _united(problem: Problem, served: Sequence[Served]) -> Proof | Failure:
    """The proof of several classes of units, each with its own states."""
    part = _part(problem, [a for some in served for a in some.atoms])
    return prove_in_modes(part, shared(part, [Part(some.atoms, some.states) for some in served]))


def _part(problem: Problem, some: Sequence[Atom]) -> Problem:
    return replace(problem, sizes={a: problem.sizes[a] for a in some})


def _known(problem: Problem) -> Known:
    """What is kept with the analysis; nothing is for other axes than its own."""
    return problem.analysis.kept(Known, Known) if problem.dims in problem.analysis.solved else Known()


def _key(problem: Problem) -> Key:
    return problem.dims.adapt_skips, tuple(other.training for other in problem.others), frozenset(problem.sizes.items())


def _label(problem: Problem, group: Sequence[Atom]) -> str:
    for producer in problem.dims.producers:
        if set(group) & set(atoms(problem.dims.algebra.resolve(producer.axis))):
            return producer.node
    return problem.dims.algebra.name(group[0])
