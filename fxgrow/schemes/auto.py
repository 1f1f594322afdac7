"""Auto: uses for every set of units the first scheme whose proof succeeds, starting with R2R."""

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
"""The schemes in the order in which they are tried. With R2R every new weight gets a gradient at the first step; zeros
and means need no equal units; copies are possible with every norm."""


@dataclass(frozen=True, slots=True)
class Served:
    """Atoms for which states were found, with the states and their proof."""

    atoms: tuple[Atom, ...]
    states: Assignment
    proof: Proof
    reason: str = ""
    """The scheme that was used, and why R2R is not possible; empty for R2R."""


@dataclass(frozen=True, slots=True)
class Auto:
    """R2R where possible, otherwise zeros (before an rms_norm), means (before a layer_norm), or uniform copies."""

    name: str = "auto"

    def choose(self, problem: Problem) -> Assignment | Failure:
        """Choose states with one scheme for all atoms if possible, otherwise for each independent set separately."""
        found = self.chosen(problem)
        return found if isinstance(found, Failure) else found[0]

    def chosen(self, problem: Problem) -> tuple[Assignment, Proof, Mapping[str, str]] | Failure:
        """Return the states, their proof, and for layers for which R2R is not possible the scheme that was used, and
        why."""
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
        """Yield for each independent set of atoms its states, or why there are none; results are cached by sizes."""
        known = _known(problem)
        for group in connected(problem.dims, problem.sizes):
            yield known.served(replace(problem, sizes={a: problem.sizes[a] for a in group}))


def proved(scheme: Scheme, problem: Problem) -> tuple[Assignment, Proof] | Failure:
    """Return the states that a scheme chooses and their proof, or why one of them fails."""
    chosen = scheme.choose(problem)
    if isinstance(chosen, Failure):
        return chosen
    if not isinstance(chosen, Mapping):
        what = f"scheme {scheme.name} returned {type(chosen).__name__}, not a mapping of states"
        raise usage(Kind.BAD_OPTION, what, hint="Scheme.choose returns a mapping from Place to State, or a Failure")
    proof = prove_in_modes(problem, chosen)
    return proof if isinstance(proof, Failure) else (chosen, proof)


Answer = tuple[list[Served], list[Failure]]
"""For a set of atoms: those for which states were found, and why the others cannot grow."""
Key = tuple[bool, tuple[bool, ...], frozenset[tuple[Atom, int]]]


@dataclass(slots=True)
class Known:
    """A cache of the states and proofs of growths of one model, which lives as long as its analysis."""

    proofs: dict[tuple[Scheme, Key], tuple[Assignment, Proof] | Failure] = field(default_factory=dict)
    sets: dict[Key, Answer] = field(default_factory=dict)

    def proved(self, scheme: Scheme, problem: Problem) -> tuple[Assignment, Proof] | Failure:
        """Return the result of `proved` for a built-in scheme, from the cache if it is there."""
        key = scheme, _key(problem)
        if key not in self.proofs:
            self.proofs[key] = proved(scheme, problem)
        return self.proofs[key]

    def served(self, problem: Problem) -> Answer:
        """Return states for a set of atoms: from one scheme if possible, otherwise each class of tied atoms from its
        own."""
        key = _key(problem)
        if key not in self.sets:
            found = self.by_one(problem)
            self.sets[key] = ([found], []) if isinstance(found, Served) else self._by_several(problem, found)
        return self.sets[key]

    def by_one(self, problem: Problem) -> Served | Failure:
        """Return the states of the first scheme whose proof succeeds for all atoms."""
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
        """Choose a scheme for each class of tied atoms, or for several that fail alone together; prove their union."""
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
    """Prove the growth of several classes of atoms, each with its own states."""
    part = _part(problem, [a for some in served for a in some.atoms])
    return prove_in_modes(part, shared(part, [Part(some.atoms, some.states) for some in served]))


def _part(problem: Problem, some: Sequence[Atom]) -> Problem:
    return replace(problem, sizes={a: problem.sizes[a] for a in some})


def _known(problem: Problem) -> Known:
    """Return the cache of the analysis; for axes that do not belong to it, an empty one."""
    return problem.analysis.kept(Known, Known) if problem.dims in problem.analysis.solved else Known()


def _key(problem: Problem) -> Key:
    return problem.dims.adapt_skips, tuple(other.training for other in problem.others), frozenset(problem.sizes.items())


def _label(problem: Problem, group: Sequence[Atom]) -> str:
    for producer in problem.dims.producers:
        if set(group) & set(atoms(problem.dims.algebra.resolve(producer.axis))):
            return producer.node
    return problem.dims.algebra.name(group[0])
