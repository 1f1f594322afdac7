"""Widen: more units in one volume, and in everything that must grow with it. Program and axes in, plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import fx

from fxgrow.analysis import Analysis
from fxgrow.capture.opening import Opening, opening_of
from fxgrow.capture.trees import attribute
from fxgrow.dims.axis import Atom, atoms
from fxgrow.dims.solver import DimsSolver
from fxgrow.errors import GrowthRefused, Kind, usage
from fxgrow.plan import Growth, Plan, SkipEdit
from fxgrow.plan.cost import costs
from fxgrow.plan.simulate import Simulation
from fxgrow.plan.sizes import NewSizes
from fxgrow.schemes import Assignment, Auto, Failure, Problem, Proof, Scheme, State, scheme_named
from fxgrow.schemes.proof import prove

from .opened import closed, opened
from .refuse import explain_refusal, failed, inexpressible
from .skips import skip_edits
from .targets import Target, find_target
from .tensors import tensor_edits
from .widths import Width, chosen_atoms, new_sizes

Skip = Literal["couple", "reshape"]
Grow = Literal["channels", "groups"]
INITS = ("match", "kaiming", "xavier")


@dataclass(frozen=True, slots=True, kw_only=True)
class Widen:
    """Widen the volumes that some nodes produce. The fields are the options.

    Args:
        nodes: module paths, fx node names or parameter names; all of them grow in one plan.
        width: to, by, factor (default 2), round_to.
        skip: what happens at residual joins. "couple": every tensor of the stream widens together and no node is
            added. "reshape": only the named volume widens, and each skip path from or to it is adapted (equation 38).
        adapter: with skip="reshape", r is zero padding ("pad") or a learnable 1x1 convolution ("conv").
        grow: of a grouped convolution's channels (g c), "channels" per group grow, or whole "groups".
        scheme: what new units hold.
        seed: new values depend on it and on the name of their parameter, on nothing else.
        init: how new weights are drawn: "match" the spread of the old ones, "kaiming" or "xavier".
    """

    nodes: tuple[str, ...]
    width: Width = field(default_factory=Width)
    skip: Skip = "couple"
    adapter: Literal["pad", "conv"] = "pad"
    grow: Grow = "channels"
    scheme: str | Scheme = "auto"
    seed: int = 0
    init: str = "match"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("skip", ("couple", "reshape")),
            ("adapter", ("pad", "conv")),
            ("grow", ("channels", "groups")),
            ("init", INITS),
        ):
            if getattr(self, name) not in allowed:
                raise usage(
                    Kind.BAD_OPTION, f"{name}={getattr(self, name)!r} is unknown", hint=f"one of: {', '.join(allowed)}"
                )
        if type(self.seed) is not int:
            raise usage(Kind.BAD_OPTION, f"seed must be a whole number, not {self.seed!r}", hint="seed=0")
        if not self.nodes:
            raise usage(Kind.BAD_OPTION, "no node is named", hint='node="layer2.conv1"')

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """What would change. Reads the model's graph and the shapes of its tensors; writes nothing.

        Raises:
            UsageError: a name or a width cannot be meant.
            GrowthRefused: the growth would change the function or the interface, or cannot be written down.
        """
        return self._plan(gm, analysis, ())

    def _plan(self, gm: fx.GraphModule, analysis: Analysis, openings: tuple[Opening, ...]) -> Plan:
        scheme = scheme_named(self.scheme)
        dims = analysis.volumes if self.skip == "reshape" else analysis.dims
        targets = [find_target(gm, analysis, dims, name) for name in dict.fromkeys(self.nodes)]
        sizes: dict[Atom, int] = {}
        for target in targets:
            in_the_way = closed(gm, dims, target.axis)
            if in_the_way and not chosen_atoms(dims, target.axis, self.grow):
                everything = (*openings, *(opening_of(gm, node, analysis.program) for node in in_the_way))
                return self._plan(*opened(gm, analysis, everything[len(openings) :]), everything)
            self._grow(gm, dims, target, sizes)
        where = targets[0]
        problem = Problem(analysis, dims, sizes)
        found = scheme.chosen(problem) if isinstance(scheme, Auto) else scheme.choose(problem)
        if isinstance(found, Failure):
            raise failed(gm, dims, where, found)
        assignment, taken = found if isinstance(found, tuple) else (found, {})
        proof = prove(dims, sizes, assignment)
        if isinstance(proof, Failure):
            raise failed(gm, dims, where, proof)
        plan = self._write(gm, analysis, dims, sizes, assignment, proof, targets, taken)
        if not plan.openings:
            return replace(plan, openings=openings)
        everything = (*openings, *plan.openings)
        return self._plan(*opened(gm, analysis, plan.openings), everything)

    def _grow(self, gm: fx.GraphModule, dims: DimsSolver, target: Target, sizes: dict[Atom, int]) -> None:
        """Add the new sizes that one target asks for."""
        chosen = chosen_atoms(dims, target.axis, self.grow)
        if not chosen:
            raise explain_refusal(gm, dims, target, soft=self.skip == "reshape")
        classes: list[list[Atom]] = []
        for atom in chosen:
            if not any(atom in known for known in classes):
                classes.append(tied(dims, atom))
        if all(a in sizes for c in classes for a in c):
            return  # named twice, e.g. two layers of one coupled stream
        sizes.update(new_sizes(dims, target.axis, classes, self.width, target.name))

    def _write(
        self,
        gm: fx.GraphModule,
        analysis: Analysis,
        dims: DimsSolver,
        sizes: dict[Atom, int],
        assignment: Assignment,
        proof: Proof,
        targets: Sequence[Target],
        taken: Mapping[str, str],
    ) -> Plan:
        scheme = scheme_named(self.scheme)
        new = NewSizes(dims, sizes, proof.numbers, proof.paired)
        skips = skip_edits(gm, dims, sizes, self.adapter, targets[0], proof.paired)
        tensors = tensor_edits(dims, sizes, assignment, proof, self.seed)
        shapes = {id(attribute(gm, t.names[0])): t.new for t in tensors}
        detached = {(s.node, s.source): _adapted(analysis, s) for s in skips}
        try:
            simulation = Simulation(analysis, gm, new, shapes, detached).run()
        except GrowthRefused as refused:
            raise inexpressible(dims, targets[0], refused) from None
        before, after = costs(analysis, gm, tensors, new)
        names = ", ".join(t.name for t in targets)
        algebra = dims.algebra
        labels = {atom: t.node for t in targets for atom in atoms(algebra.resolve(t.axis))}
        now = [algebra.measure(t.axis) for t in targets]
        then = [algebra.measure(t.axis, sizes) for t in targets]
        widths = ", ".join(f"{a} -> {b}" for a, b in zip(now, then, strict=True))
        return Plan(
            title=f"widen {names}: {widths} channels",
            scheme=scheme.name,
            seed=self.seed,
            init=self.init,
            growths=tuple(Growth(labels.get(a) or _label(dims, a), algebra.size[a.index], n) for a, n in sizes.items()),
            tensors=tensors,
            modules=tuple(simulation.modules),
            nodes=tuple(simulation.nodes),
            skips=skips,
            proof=tuple(f"{s.node}: {s.op.removeprefix('aten::')}: {s.text}" for s in proof.steps),
            eval_only=proof.eval_only,
            notes=(
                *(f"{label}: scheme {text}" for label, text in taken.items()),
                *_notes(sizes, dims, assignment),
            ),
            before=before,
            after=after,
            model=analysis.digest,
            openings=tuple(simulation.openings),
        )


def tied(dims: DimsSolver, atom: Atom) -> list[Atom]:
    """An atom and all that grow in step with it; a piece that may not grow lets the others go alone."""
    found = [atom]
    for member in found:
        for a, b in dims.algebra.ties:
            x, y = dims.algebra.resolve(a), dims.algebra.resolve(b)
            for one, other in ((x, y), (y, x)):
                free = isinstance(other, Atom) and other.index not in dims.algebra.frozen
                if one == member and isinstance(other, Atom) and free and other not in found:
                    found.append(other)
    return found


def _adapted(analysis: Analysis, skip: SkipEdit) -> tuple[int, ...]:
    value = analysis.program.results[skip.source]
    shape = list(value.shape)
    shape[skip.axis] = skip.width
    return tuple(shape)


def _label(dims: DimsSolver, atom: Atom) -> str:
    """An atom by its first producer."""
    for producer in dims.producers:
        if atom in atoms(dims.algebra.resolve(producer.axis)):
            return producer.node
    return dims.algebra.name(atom)


def _notes(sizes: Mapping[Atom, int], dims: DimsSolver, assignment: Assignment) -> tuple[str, ...]:
    notes = []
    halves = any(state in (State.EVEN, State.ODD) for state in assignment.values())
    odd = [
        f"{_label(dims, a)} ({n - dims.algebra.size[a.index]})"
        for a, n in sizes.items()
        if (n - dims.algebra.size[a.index]) % 2
    ]
    if odd and halves:
        notes.append(f"odd numbers of new units: {', '.join(odd)}; one of them has no twin, and zero outgoing weights")
    zeros = sorted({dims.program.values[p.value].names[0] for p, s in assignment.items() if s is State.ZERO})
    if zeros and halves:
        notes.append(f"set to zero because its roles contradict each other: {', '.join(zeros)}")
    return tuple(notes)
