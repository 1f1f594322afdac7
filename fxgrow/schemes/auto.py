"""Auto: for every set of units the first scheme that proves, R2R before all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..dims.axis import Atom, atoms
from ..errors import Kind, usage
from .mean import Mean
from .modes import prove_in_modes
from .morphism import Morphism
from .net2net import Net2Net
from .r2r import R2R
from .states import Assignment, Failure, Place, Problem, Proof, Scheme, State
from .zero import Zero

ORDER: tuple[Scheme, ...] = (R2R(), Zero(), Mean(), Morphism(), Net2Net())
"""R2R trains every new weight from the first step; zeros and means need no equal copies; copies pass every norm."""


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
        first = proved(ORDER[0], problem)
        if isinstance(first, tuple) and not first[1].limited:
            return *first, {}
        states: dict[Place, State] = {}
        reasons: dict[str, str] = {}
        for group in _apart(problem):
            part = replace(problem, sizes={a: problem.sizes[a] for a in group})
            failures: list[Failure] = []
            limited: tuple[Scheme, Assignment] | None = None
            for scheme in ORDER:
                found = proved(scheme, part)
                if isinstance(found, Failure):
                    failures.append(found)
                elif found[1].limited:
                    limited = limited or (scheme, found[0])
                    failures.append(Failure(Kind.NO_PROOF, 0, f"in training mode {found[1].limited}"))
                else:
                    limited = scheme, found[0]
                    break
            if limited is None:
                return replace(failures[0], hint=next((f.hint for f in failures if f.hint), ""))
            scheme, chosen = limited
            states.update(chosen)
            if scheme is not ORDER[0]:
                reasons[_label(problem, group)] = f"{scheme.name}, because r2r cannot: {failures[0].text}"
        proof = prove_in_modes(problem, states)
        return proof if isinstance(proof, Failure) else (states, proof, reasons)


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


def _apart(problem: Problem) -> list[list[Atom]]:
    """Growing atoms in sets that no axis holds together: their states do not depend on each other."""
    groups: list[set[Atom]] = []
    dims = problem.dims
    axes: set[frozenset[Atom]] = set()
    for value in dims.program.values:
        for axis in dims.axes.get(value.index, ()):
            axes.add(frozenset(a for a in atoms(dims.algebra.resolve(axis)) if a in problem.sizes))
    for held in axes:
        if held:
            joined = set(held).union(*(g for g in groups if g & held))
            groups = [g for g in groups if not g & held] + [joined]
    return [sorted(g, key=lambda a: a.index) for g in groups]


def _label(problem: Problem, group: Sequence[Atom]) -> str:
    for producer in problem.dims.producers:
        if set(group) & set(atoms(problem.dims.algebra.resolve(producer.axis))):
            return producer.node
    return problem.dims.algebra.name(group[0])
