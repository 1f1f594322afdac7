"""Keep the state of a planning task, and decide which of the requested layers must be left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.dependent_sets import connected
from ..analysis.solver import DimsSolver
from ..capture.decomposition.attention import Decomposition
from ..dims.axis import Atom, atoms
from ..errors import GrowthRefused, Kind, Refusal
from ..plans import Plan
from ..proof.unread import unread
from ..schemes import Auto, Failure, Problem, Scheme
from ..schemes.auto import ORDER, proved
from .decompose_attention import decomposed
from .targets import Target
from .widths import chosen_atoms

Grow = Literal["channels", "groups"]
Factor = Literal["channels", "groups", "units"]
"""Which factor of a product grows; see `chosen_atoms`."""
_MIXED = (Kind.NORM, Kind.SOFTMAX, Kind.STATISTIC)
"""Kinds of failure that can be avoided by copying all units of an axis equally often."""


@dataclass
class Task:
    """The state of planning a growth of a model: the model, its analysis, and the choices made so far."""

    gm: fx.GraphModule
    analysis: Analysis
    openings: tuple[Decomposition, ...] = ()
    left_out: dict[str, Refusal] = field(default_factory=dict)
    """Names that cannot grow, with the refusal: not the exception, which would keep its stack frames alive."""
    other_way: dict[str, Factor] = field(default_factory=dict)
    """Names that grow by another factor of their products, because the first one cannot grow."""
    causes: dict[str, GrowthRefused] = field(default_factory=dict)
    """For each of these names, why the first factor cannot grow."""
    moved: set[str] = field(default_factory=set)
    """Names that were left out, or switched to another factor, since the last attempt."""
    beside: dict[Atom, int] = field(default_factory=dict)
    """Units that were not requested, but must grow for the requested ones to grow, with their new sizes."""
    in_vain: set[Atom] = field(default_factory=set)
    """Such units that did not help."""
    first: GrowthRefused | None = None
    """The first refusal."""
    expected: int | None = None
    """How many names were left out when calls were decomposed before any proof; None if no calls were decomposed."""

    def anew(self, gm: fx.GraphModule, analysis: Analysis) -> Task:
        """Return a new task with the same names left out, for the model before calls were decomposed."""
        return Task(
            gm, analysis, left_out=self.left_out, other_way=self.other_way, causes=self.causes, first=self.first
        )

    def open(self, openings: Sequence[Decomposition]) -> None:
        """Continue with a copy of the model in which calls are decomposed."""
        once = tuple({opening.node: opening for opening in openings}.values())  # layers may share a call
        self.gm, self.analysis = decomposed(self.gm, self.analysis, once)
        self.openings = (*self.openings, *once)


@dataclass(frozen=True, slots=True)
class Settled:
    """A plan, and the names that it leaves out with their refusals."""

    plan: Plan | None
    """The plan; None if all names are left out."""
    left_out: Mapping[str, Refusal]
    first: GrowthRefused | None = None
    """The first refusal, if there was any."""


def another_factor(task: Task, dims: DimsSolver, target: Target, grow: Grow, *, optional: bool) -> Factor | None:
    """Return the next factor of products by which a layer may grow, after those that have been tried.

    Args:
        task: The planning task, which knows the factors that have been tried.
        dims: The axes of the model.
        target: The layer to grow.
        grow: The requested factor.
        optional: Whether the layer was not requested by name, so that either factor may grow.
    """
    other: tuple[Factor, ...] = ("channels" if grow == "groups" else "groups",) if optional else ()
    ways: tuple[Factor, ...] = (grow, *other, *(("units",) if grow == "channels" else ()))
    now = task.other_way.get(target.name, grow)
    tried = [chosen_atoms(dims, target.axis, way) for way in ways[: ways.index(now) + 1]]
    for way in ways[ways.index(now) + 1 :]:
        chosen = chosen_atoms(dims, target.axis, way)
        if chosen and chosen not in tried:
            return way
    return None


def failures(scheme: Scheme, problem: Problem, first: Failure) -> Iterator[Failure]:
    """Yield why units of a failed growth cannot grow: one failure for each independent set of units that fails.

    If no set fails separately, yield the failure of the whole growth.
    """
    found = False
    if isinstance(scheme, Auto):
        for _, lost in scheme.each(problem):
            found = found or bool(lost)
            yield from lost
    for some in connected(problem.dims, problem.sizes) if not found else ():
        part = replace(problem, sizes={a: problem.sizes[a] for a in some})
        made = scheme.chosen(part) if isinstance(scheme, Auto) else proved(scheme, part)
        failure = made if isinstance(made, Failure) else unread(part, made[1])
        if failure is not None:
            found = True
            yield replace(failure, atoms=failure.atoms or frozenset(some))
    if not found:
        yield first


def stopped(dims: DimsSolver, sizes: Mapping[Atom, int], failure: Failure) -> frozenset[Atom]:
    """Return the units that cannot grow because of a failure."""
    return failure.atoms or seen_at(dims, sizes, dims.program.ops[failure.op].node) or frozenset(sizes)


def companions(scheme: Scheme, problem: Problem, failure: Failure) -> dict[Atom, int]:
    """Return the units that must grow together with those of a failed growth, with their new sizes.

    These are the other units of an axis that is normalised or reduced to a statistic: all units of such an axis must be
    copied equally often. The result is empty if the failure has another cause.
    """
    dims, sizes = problem.dims, problem.sizes
    if isinstance(scheme, Auto) and failure.kind in _MIXED:
        found = proved(ORDER[-1], problem)
        failure = found if isinstance(found, Failure) else failure
    if failure.kind not in _MIXED:
        return {}
    old: Sequence[int] = dims.algebra.size
    more: dict[Atom, int] = {}
    for value in dims.program.ops[failure.op].inputs():
        for held in dims.occurrences(value):
            factors = {sizes[atom] / old[atom.index] for atom in held if atom in sizes}
            if len(factors) == 1 and (factor := factors.pop()).is_integer():
                free = (a for a in held if a not in sizes and a.index not in dims.algebra.frozen)
                more.update({b: old[b.index] * int(factor) for a in free for b in dims.algebra.in_step(a)})
    return {atom: n for atom, n in more.items() if atom not in sizes}


def told_beside(dims: DimsSolver, beside: Collection[Atom]) -> list[str]:
    """Return a note about the layers that grow although they were not requested."""
    nodes = [p.node for p in dims.producers if not set(beside).isdisjoint(atoms(dims.algebra.resolve(p.axis)))]
    return [f"{', '.join(dict.fromkeys(nodes))}: normalised together with the layers that are named"] if nodes else []


def holding(dims: DimsSolver, targets: Sequence[Target], units: Collection[Atom]) -> list[Target]:
    """Return the layers whose axes contain any of these units."""
    return [t for t in targets if not set(units).isdisjoint(atoms(dims.algebra.resolve(t.axis)))]


def seen_at(dims: DimsSolver, sizes: Mapping[Atom, int], node: str) -> frozenset[Atom]:
    """Return the growing units that the operators of a node see."""
    values = (value for op in dims.program.node_ops.get(node, ()) for value in (*op.inputs(), *op.outputs))
    return frozenset(atom for value in values for atom in dims.held(value) if atom in sizes)
