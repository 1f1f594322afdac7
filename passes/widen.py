"""The pass Widen, which adds channels to layers, and to everything that must grow with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from torch import fx

from fxgrow.analysis.analysis import Analysis
from fxgrow.analysis.solver import DimsSolver
from fxgrow.capture.decomposition.inline_calls import decomposition_of
from fxgrow.dims.axis import Atom, atoms
from fxgrow.errors import FxgrowError, GrowthRefused, Kind, Refusal, usage
from fxgrow.plans import Plan
from fxgrow.plans.limits import is_seed
from fxgrow.proof.unread import unread
from fxgrow.schemes import Auto, Failure, Problem, Scheme, scheme_named
from fxgrow.schemes.auto import proved

from ..planning.build_plan import Writing, written
from ..planning.decompose_attention import closed, drawing_behind, redrawn_lines, with_other_heads
from ..planning.proved import Inexpressible, Proved
from ..planning.refusals import explain_refusal, failed, inexpressible
from ..planning.settling import Grow as Grow
from ..planning.settling import (
    Settled,
    Task,
    another_factor,
    companions,
    failures,
    holding,
    seen_at,
    stopped,
    told_beside,
)
from ..planning.skip_edits import behind
from ..planning.targets import Name, Target, find_target, names_in, paths
from ..planning.unit_names import of_units
from ..planning.widths import Width, chosen_atoms, new_sizes

Skip = Literal["couple", "reshape"]
INITS = ("match", "kaiming", "xavier")


@dataclass(frozen=True, slots=True)
class Widen:
    """Add channels to the volumes that some layers produce (R2WiderR, arXiv 2410.11038, equations 8, 9, 12 and 38).

    Example:
        >>> from fxgrow.passes import Widen
        >>> Widen("layer2.conv1", to=256).width.to
        256

    Args:
        nodes: module paths, fx node names or parameter names; all of them grow in one plan.
        to: the new number of channels.
        by: number of channels to add.
        factor: how many times wider; 2 if neither `to` nor `by` is given.
        round_to: round the width up to a multiple of this number.
        width: these four options as one `Width`.
        others: further names, each with its own width.
        optional: names that are left out if they cannot grow; the plan's notes list them. The pass fails only if none
            of the names can grow.
        fixed: names that keep their widths, even if others can grow only together with them.
        skip: what happens at residual joins. "couple": every tensor of the stream widens together and no node is
            added. "reshape": only the named volume widens, and each skip path from or to it is adapted (equation 38).
        adapter: with skip="reshape", adapt skip paths by zero padding ("pad") or a learnable 1x1 convolution ("conv").
        grow: for the channels of a grouped convolution, add "channels" to each group, or whole "groups".
        scheme: how new units are initialised, as in `fxgrow.widen`.
        seed: seed of the new values, which depend only on it and on parameter names.
        init: how new weights are drawn: "match" uses the standard deviation of the old ones; or "kaiming", "xavier".
    """

    nodes: Name | Sequence[Name]
    _: KW_ONLY
    to: InitVar[int | None] = None
    by: InitVar[int | None] = None
    factor: InitVar[float | None] = None
    round_to: InitVar[int | None] = None
    width: Width = field(default_factory=Width)
    others: tuple[tuple[str, Width], ...] = ()
    optional: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    skip: Skip = "couple"
    adapter: Literal["pad", "conv"] = "pad"
    grow: Grow = "channels"
    scheme: str | Scheme = "auto"
    seed: int = 0
    init: str = "match"

    def __post_init__(self, to: int | None, by: int | None, factor: float | None, round_to: int | None) -> None:
        object.__setattr__(self, "nodes", names_in(self.nodes))
        if any(x is not None for x in (to, by, factor, round_to)):
            object.__setattr__(self, "width", Width(to=to, by=by, factor=factor, round_to=round_to))
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

    def plan(
        self, gm: fx.GraphModule, analysis: Analysis, left_out: Mapping[str, Refusal] = MappingProxyType({})
    ) -> Plan:
        """Plan the widening. Reads the graph and the shapes of tensors; writes nothing.

        Raises:
            UsageError: a name or a width is invalid.
            GrowthRefused: the growth would change the function or the interface, or cannot be expressed as a plan.
        """
        settled = self.settled(gm, analysis, left_out)
        if settled.plan is None:
            raise settled.first or GrowthRefused(next(iter(settled.left_out.values())))
        return settled.plan

    def settled(
        self, gm: fx.GraphModule, analysis: Analysis, left_out: Mapping[str, Refusal] = MappingProxyType({})
    ) -> Settled:
        """Return the plan, together with the names that are left out of it and the reasons.

        Args:
            gm: the model.
            analysis: its analysis.
            left_out: names that are known not to grow, with the reasons.

        Raises:
            UsageError: as in `plan`.
            GrowthRefused: as in `plan`, if a name that is not optional cannot grow.
        """
        task = Task(gm, analysis, left_out={name: left_out[name] for name in self.optional if name in left_out})
        plan = self._found(task)
        if plan is not None and task.expected is not None and len(task.left_out) > task.expected:
            task = task.anew(gm, analysis)  # fewer calls may have to be decomposed
            plan = self._found(task)
        if plan is None:
            return Settled(None, task.left_out, task.first)
        behind = tuple(node for node in drawing_behind(plan.openings, gm, analysis) if node not in plan.redrawn)
        plan = replace(plan, redrawn=(*plan.redrawn, *behind), proof=(*plan.proof, *redrawn_lines(behind)))
        return Settled(plan, task.left_out, task.first)

    def _found(self, task: Task) -> Plan | None:
        """Try until a plan is found; return None if all names are left out."""
        plan: Plan | None = None
        while plan is None and not task.left_out.keys() >= self._wishes.keys():
            plan = self._tried(task)
        return plan

    def _tried(self, task: Task) -> Plan | None:
        """Return the plan, or None if the task has changed (a call was decomposed, a name left out, or another factor
        chosen) and the caller must try again.

        Raises:
            GrowthRefused: a layer that fails is not optional, or no layer is left.
        """
        dims = self._dims(task)
        task.moved.clear()
        sizes, targets = self.sizes(task, dims)
        if sizes is None:
            return None
        if windows := with_other_heads(task.gm, dims, sizes):
            task.expected = len(task.left_out) if task.expected is None else task.expected
            task.open([decomposition_of(task.gm, node, task.analysis.programs(task.gm)) for node in windows])
            return None
        problem = Problem(task.analysis, dims, sizes, task.analysis.others(task.gm))
        scheme = scheme_named(self.scheme)
        found = scheme.chosen(problem) if isinstance(scheme, Auto) else proved(scheme, problem)
        failure = found if isinstance(found, Failure) else unread(problem, found[1])
        if isinstance(found, Failure) or failure is not None:
            assert failure is not None
            some = list(failures(scheme, problem, failure)) if self.optional else [failure]
            if self._beside(task, scheme, problem, targets, some):
                return None
            if not self.optional and task.beside:
                assert task.first is not None, "what grows beside the layers was needed"
                raise task.first
            for failure in some:
                units = stopped(dims, sizes, failure)
                self._without(task, dims, targets, units, partial(failed, task.gm, dims, failure=failure))
            return None
        taken = [f"{label}: scheme {text}" for label, text in found[2].items()] if len(found) == 3 else []
        taken += [f"{text}, by the same factor" for text in told_beside(dims, task.beside)]
        notes = (*taken, *(f"left out: {name}: {_reason(why)}" for name, why in task.left_out.items()))
        growth = Proved(dims, sizes, targets, found[0], found[1], notes)
        how = Writing(scheme, self.adapter, self.seed, self.init, several=bool(self.optional))
        try:
            plan = written(task.gm, task.analysis, growth, how)
        except Inexpressible as refused:
            for one in refused.all:
                self._without(
                    task,
                    dims,
                    self._guilty(task, dims, targets, seen_at(dims, sizes, one.refusal.chain[-1])),
                    frozenset(sizes),
                    partial(inexpressible, dims, refused=one),
                )
            return None
        if plan.openings:
            task.open(plan.openings)
            return None
        return replace(plan, openings=task.openings)

    def _beside(
        self, task: Task, scheme: Scheme, problem: Problem, targets: Sequence[Target], some: Sequence[Failure]
    ) -> bool:
        """Return whether other units were found, and added to the task, with which the failing layers may be able to
        grow."""
        dims, found = problem.dims, False
        kept = {*self._atoms(task, dims, (*self.fixed, *task.left_out)), *task.in_vain}
        for failure in some:
            units = stopped(dims, problem.sizes, failure) if self.optional else problem.sizes.keys()
            part = replace(problem, sizes={atom: problem.sizes[atom] for atom in units})
            beside = companions(scheme, part, failure)
            if beside.keys() - problem.sizes.keys() and kept.isdisjoint(beside):
                task.beside.update(beside)
                task.first = task.first or failed(task.gm, dims, targets[0], failure)
                found = True
            elif self.optional:
                task.in_vain.update(units & task.beside.keys())
        return found

    def _atoms(self, task: Task, dims: DimsSolver, names: Collection[str]) -> Iterator[Atom]:
        """Yield the atoms of the named layers' channels."""
        known = paths(task.gm, dims) if names else {}
        for name in names:
            yield from atoms(dims.algebra.resolve(known[name].axis)) if name in known else ()

    def _dims(self, task: Task) -> DimsSolver:
        return task.analysis.volumes if self.skip == "reshape" else task.analysis.dims

    @property
    def _wishes(self) -> Mapping[str, Width]:
        return {**dict.fromkeys(names_in(self.nodes), self.width), **dict(self.others)}

    def sizes(self, task: Task, dims: DimsSolver) -> tuple[dict[Atom, int] | None, list[Target]]:
        """Return the new sizes and the target layers. The sizes are None if no target is left, or if calls had to be
        decomposed first."""
        sizes: dict[Atom, int] = {}
        targets: list[Target] = []
        closed_nodes: dict[fx.Node, None] = {}
        for name, width in self._wishes.items():
            if name in task.left_out:
                continue
            try:
                target = find_target(task.gm, task.analysis, dims, name)
                in_the_way = closed(task.gm, dims, target.axis)
                if in_the_way and not chosen_atoms(dims, target.axis, self.grow):
                    closed_nodes.update(dict.fromkeys(in_the_way))
                    continue
                self._grow(task, dims, target, width, sizes)
                targets.append(target)
            except GrowthRefused as refused:
                if name not in self.optional:
                    raise
                task.left_out[name] = refused.refusal
        if closed_nodes:
            task.open([decomposition_of(task.gm, node, task.analysis.programs(task.gm)) for node in closed_nodes])
            return None, targets
        sizes.update((atom, n) for atom, n in task.beside.items() if atom not in sizes)
        return (sizes, targets) if targets else (None, targets)

    def _without(
        self,
        task: Task,
        dims: DimsSolver,
        targets: Sequence[Target],
        units: Collection[Atom],
        cause: Callable[[Target], GrowthRefused],
    ) -> None:
        """Let layers whose new units an operator rejects grow by another factor of their channels, or leave them out.

        Raises:
            GrowthRefused: one of them is not optional and has no other factor.
        """
        near = holding(dims, targets, units)
        if not near:
            raise cause(targets[0])
        for target in sorted(near, key=lambda t: t.name in self.optional):
            name, optional = target.name, target.name in self.optional
            if name in task.moved:
                continue
            way = another_factor(task, dims, target, self.grow, optional=optional)
            if name not in task.causes:
                task.causes[name] = cause(target)
            if way is None and not optional:
                raise task.causes[name]
            task.moved.add(name)
            task.first = task.first or task.causes[name]
            if way is not None:
                task.other_way[name] = way
            else:
                task.left_out[name] = task.causes[name].refusal
            task.beside.clear()

    def _guilty(self, task: Task, dims: DimsSolver, targets: Sequence[Target], units: Collection[Atom]) -> list[Target]:
        """Return the layers with these units that cannot grow alone; all of them if each can."""
        near = holding(dims, targets, units) or list(targets)
        if len(near) < 2 or not self.optional:
            return near
        return [t for t in near if not self._grows_alone(task, t.name)] or near

    def _grows_alone(self, task: Task, name: str) -> bool:
        way = task.other_way.get(name, self.grow)
        grow = self.grow if way == "units" else way  # "units" is tried when the other factor fails
        alone = replace(self, nodes=(), others=((name, self._wishes[name]),), optional=frozenset(), grow=grow)
        try:
            alone.plan(task.gm, task.analysis)
        except FxgrowError:
            return False
        return True

    def _grow(self, task: Task, dims: DimsSolver, target: Target, width: Width, sizes: dict[Atom, int]) -> None:
        """Add the new sizes that one target requires."""
        chosen = chosen_atoms(dims, target.axis, task.other_way.get(target.name, self.grow))
        if not chosen:
            raise explain_refusal(task.gm, dims, target, adapt_skips=self.skip == "reshape")
        chosen = behind(dims, target.axis, chosen)
        steps: list[list[Atom]] = []
        for atom in chosen:
            if not any(atom in known for known in steps):
                steps.append(dims.algebra.in_step(atom))
        try:
            wanted = new_sizes(dims, target, steps, width)
        except FxgrowError:
            if target.name in task.other_way:
                raise task.causes[target.name] from None
            raise
        other = {a: (sizes[a], n) for a, n in wanted.items() if sizes.get(a, n) != n}
        if other and target.name not in self.optional:
            have, want = next(iter(other.values()))
            what = f"shares channels with another layer that is named, and they are to be {have} and {want}"
            raise usage(
                Kind.BAD_TARGET,
                f"{target.name} {of_units(dims, target, what)}",
                hint="give one width for both, or name one of them only",
            )
        sizes.update({a: max(n, sizes.get(a, n)) for a, n in wanted.items()})


def _reason(refusal: Refusal) -> str:
    """Return the reason of a refusal, without the layer's name."""
    what = refusal.what
    return what.partition(": ")[2] if what.startswith("cannot widen ") else what
