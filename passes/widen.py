"""Widen: more units in one volume, and in everything that must grow with it. Program and axes in, plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import fx

from fxgrow.analysis import Analysis
from fxgrow.capture.attention import Opening
from fxgrow.capture.opening import opening_of
from fxgrow.dims.axis import Atom, atoms
from fxgrow.dims.solver import DimsSolver
from fxgrow.errors import GrowthRefused, Kind, usage
from fxgrow.plan import Plan
from fxgrow.plan.header import is_seed
from fxgrow.schemes import Auto, Failure, Problem, Scheme, scheme_named
from fxgrow.schemes.auto import proved
from fxgrow.schemes.unread import unread

from .opened import closed, drawing_behind, opened, redrawn_lines
from .proved import Inexpressible, Proved
from .refuse import explain_refusal, failed, inexpressible
from .skips import behind
from .targets import Target, find_target
from .widths import Width, chosen_atoms, new_sizes
from .writing import written


@dataclass
class Task:
    """A model that is being planned for, and what has been found out on the way."""

    gm: fx.GraphModule
    analysis: Analysis
    openings: tuple[Opening, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    first: GrowthRefused | None = None

    def opened(self, openings: Sequence[Opening]) -> Task:
        """The same for the model in which calls are written out."""
        gm, analysis = opened(self.gm, self.analysis, openings)
        return replace(self, gm=gm, analysis=analysis, openings=(*self.openings, *openings))


Skip = Literal["couple", "reshape"]
Grow = Literal["channels", "groups"]
INITS = ("match", "kaiming", "xavier")


@dataclass(frozen=True, slots=True, kw_only=True)
class Widen:
    """Widen the volumes that some nodes produce. The fields are the options.

    Args:
        nodes: module paths, fx node names or parameter names; all of them grow in one plan.
        width: to, by, factor (default 2), round_to.
        others: further names, each with a width of its own.
        optional: names that are left out if they cannot grow, which the plan's notes say; refused only if nothing can.
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
    others: tuple[tuple[str, Width], ...] = ()
    optional: frozenset[str] = frozenset()
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
        if not is_seed(self.seed):
            raise usage(Kind.BAD_OPTION, f"seed must be a whole number from 0, not {self.seed!r}", hint="seed=0")
        if not self.nodes and not self.others:
            raise usage(Kind.BAD_OPTION, "no node is named", hint='node="layer2.conv1"')

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """What would change. Reads the model's graph and the shapes of its tensors; writes nothing.

        Raises:
            UsageError: a name or a width is invalid.
            GrowthRefused: the growth would change the function or the interface, or cannot be written down.
        """
        plan = self._plan(Task(gm, analysis))
        behind = tuple(node for node in drawing_behind(plan.openings, gm, analysis) if node not in plan.redrawn)
        return replace(plan, redrawn=(*plan.redrawn, *behind), proof=(*plan.proof, *redrawn_lines(behind)))

    def _plan(self, task: Task) -> Plan:
        """Plan, and again where that shows something that must be written out or left out first."""
        gm, analysis = task.gm, task.analysis
        dims = analysis.volumes if self.skip == "reshape" else analysis.dims
        sizes, targets, closed_nodes = self.sizes(task, dims)
        if closed_nodes:
            return self._plan(task.opened([opening_of(gm, node, analysis.program) for node in closed_nodes]))
        problem = Problem(analysis, dims, sizes, analysis.others(gm))
        scheme = scheme_named(self.scheme)
        found = scheme.chosen(problem) if isinstance(scheme, Auto) else proved(scheme, problem)
        failure = found if isinstance(found, Failure) else unread(problem, found[1])
        if isinstance(found, Failure) or failure is not None:
            assert failure is not None
            node = dims.program.ops[failure.op].node
            return self._without(task, dims, targets, sizes, node, failed(gm, dims, targets[0], failure))
        taken = [f"{label}: scheme {text}" for label, text in found[2].items()] if len(found) == 3 else []
        notes = (*taken, *(f"left out: {name}: {why}" for name, why in task.left_out.items()))
        growth = Proved(dims, sizes, targets, found[0], found[1], notes)
        try:
            plan = written(gm, analysis, growth, scheme=scheme, adapter=self.adapter, seed=self.seed, init=self.init)
        except Inexpressible as refused:
            cause = inexpressible(dims, targets[0], refused)
            return self._without(task, dims, targets, sizes, refused.refusal.chain[-1], cause)
        return self._plan(task.opened(plan.openings)) if plan.openings else replace(plan, openings=task.openings)

    def sizes(self, task: Task, dims: DimsSolver) -> tuple[dict[Atom, int], list[Target], list[fx.Node]]:
        """New sizes, the layers that asked for them, and calls that must be written out before more can be said."""
        sizes: dict[Atom, int] = {}
        targets: list[Target] = []
        first: GrowthRefused | None = None
        wishes = {**dict.fromkeys(self.nodes, self.width), **dict(self.others)}
        for name, width in wishes.items():
            if name in task.left_out:
                continue
            try:
                target = find_target(task.gm, task.analysis, dims, name)
                in_the_way = closed(task.gm, dims, target.axis)
                if in_the_way and not chosen_atoms(dims, target.axis, self.grow):
                    return sizes, targets, in_the_way
                self._grow(task.gm, dims, target, width, sizes)
                targets.append(target)
            except GrowthRefused as refused:
                if name not in self.optional:
                    raise
                task.left_out[name] = _reason(refused)
                first = first or refused
        if not targets:
            cause = task.first or first
            assert cause is not None
            raise cause
        return sizes, targets, []

    def _without(
        self,
        task: Task,
        dims: DimsSolver,
        targets: Sequence[Target],
        sizes: Mapping[Atom, int],
        node: str,
        cause: GrowthRefused,
    ) -> Plan:
        """Plan without the layers whose new units an operator cannot take; if there is no choice, refuse."""
        seen = {
            a
            for op in dims.program.node_ops.get(node, ())
            for value in (*op.inputs(), *op.outputs)
            for axis in dims.resolved(value)
            for a in atoms(axis)
            if a in sizes
        }
        near = [t for t in targets if seen & set(atoms(dims.algebra.resolve(t.axis)))]
        guilty = [t for t in near if self._fails(self._alone(task, dims, t, sizes))]
        stopped = [t.name for t in guilty or near]
        if not stopped or not self.optional.issuperset(stopped):
            raise cause
        task.left_out.update(dict.fromkeys(stopped, _reason(cause)))
        task.first = task.first or cause
        return self._plan(task)

    def _fails(self, problem: Problem) -> bool:
        found = proved(scheme_named(self.scheme), problem)
        return isinstance(found, Failure) or unread(problem, found[1]) is not None

    def _alone(self, task: Task, dims: DimsSolver, target: Target, sizes: Mapping[Atom, int]) -> Problem:
        """One of the layers by itself, with what shares its channels."""
        mine = {a for a in atoms(dims.algebra.resolve(target.axis)) if a in sizes}
        together = {b for a in mine for b in tied(dims, a) if b in sizes}
        part = {a: sizes[a] for a in sizes if a in together}
        return Problem(task.analysis, dims, part, task.analysis.others(task.gm))

    def _grow(self, gm: fx.GraphModule, dims: DimsSolver, target: Target, width: Width, sizes: dict[Atom, int]) -> None:
        """Add the new sizes that one target asks for."""
        chosen = chosen_atoms(dims, target.axis, self.grow)
        if not chosen:
            raise explain_refusal(gm, dims, target, soft=self.skip == "reshape")
        chosen = behind(dims, target.axis, chosen)
        classes: list[list[Atom]] = []
        for atom in chosen:
            if not any(atom in known for known in classes):
                classes.append(tied(dims, atom))
        wanted = new_sizes(dims, target.axis, classes, width, target.name)
        other = {a: (sizes[a], n) for a, n in wanted.items() if sizes.get(a, n) != n}
        if other and target.name not in self.optional:
            have, want = next(iter(other.values()))
            raise usage(
                Kind.BAD_TARGET,
                f"{target.name} shares channels with another layer that is named, and they are to be {have} and {want}",
                hint="give one width for both, or name one of them only",
            )
        sizes.update({a: max(n, sizes.get(a, n)) for a, n in wanted.items()})


def _reason(refused: GrowthRefused) -> str:
    """Why, without who."""
    what = refused.refusal.what
    return what.partition(": ")[2] if what.startswith("cannot widen ") else what


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
