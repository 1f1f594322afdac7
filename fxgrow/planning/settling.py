"""What has been found out on the way to a plan, and which of the layers that are to grow stand in its way."""

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
"""Which factor of a product grows, in words of `chosen_atoms`."""
_MIXED = (Kind.NORM, Kind.SOFTMAX, Kind.STATISTIC)
"""Reasons that copies of all units of an axis may do away with."""


@dataclass
class Task:
    """A model that is being planned for, and what has been found out on the way."""

    gm: fx.GraphModule
    analysis: Analysis
    openings: tuple[Decomposition, ...] = ()
    left_out: dict[str, Refusal] = field(default_factory=dict)
    """Names that cannot grow, with the reason: a value, since an exception would keep the frames it was raised in."""
    other_way: dict[str, Factor] = field(default_factory=dict)
    """Names of which the other factor of their products grows, because the first one cannot."""
    causes: dict[str, GrowthRefused] = field(default_factory=dict)
    """Why the first one cannot."""
    moved: set[str] = field(default_factory=set)
    """Names that are left out, or grow the other way, since the last try."""
    beside: dict[Atom, int] = field(default_factory=dict)
    """Units that nobody named, without which the named ones cannot grow."""
    in_vain: set[Atom] = field(default_factory=set)
    """Such units with which they cannot, either."""
    first: GrowthRefused | None = None
    """The first thing that went wrong."""
    expected: int | None = None
    """How many names were left out when calls were written out before anything was proved; None if none were."""

    def anew(self, gm: fx.GraphModule, analysis: Analysis) -> Task:
        """The same without what was left out, in the model as it was before calls were written out."""
        return Task(
            gm, analysis, left_out=self.left_out, other_way=self.other_way, causes=self.causes, first=self.first
        )

    def open(self, openings: Sequence[Decomposition]) -> None:
        """Go on with the model in which calls are written out."""
        once = tuple({opening.node: opening for opening in openings}.values())  # several layers may ask for one call
        self.gm, self.analysis = decomposed(self.gm, self.analysis, once)
        self.openings = (*self.openings, *once)


@dataclass(frozen=True, slots=True)
class Settled:
    """A plan, and the names that it leaves out with the reason."""

    plan: Plan | None
    """None if all of them are left out."""
    left_out: Mapping[str, Refusal]
    first: GrowthRefused | None = None
    """What stood in the way first."""


def another_factor(task: Task, dims: DimsSolver, target: Target, grow: Grow, *, optional: bool) -> Factor | None:
    """The next factor of products by which a layer may grow, after those that have been tried.

    Args:
        task: what has been tried.
        dims: the axes.
        target: the layer.
        grow: the factor that was asked for.
        optional: whether nobody asked for this layer by name, so that the factor does not matter.
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
    """Why some of the units of a growth that fails cannot grow: for each set of them that fails by itself, else for
    all of them."""
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
    """The units that a failure stops."""
    return failure.atoms or seen_at(dims, sizes, dims.program.ops[failure.op].node) or frozenset(sizes)


def companions(scheme: Scheme, problem: Problem, failure: Failure) -> dict[Atom, int]:
    """Units without which some others cannot grow, with their new sizes: they stand in one axis that is normalised, or
    of which a statistic is taken, so that all of them have to be copied equally often. Empty if it is not for that."""
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
    """Layers that grow although nobody named them, in words."""
    nodes = [p.node for p in dims.producers if not set(beside).isdisjoint(atoms(dims.algebra.resolve(p.axis)))]
    return [f"{', '.join(dict.fromkeys(nodes))}: normalised together with the layers that are named"] if nodes else []


def holding(dims: DimsSolver, targets: Sequence[Target], units: Collection[Atom]) -> list[Target]:
    """The layers whose axes hold some of these units."""
    return [t for t in targets if not set(units).isdisjoint(atoms(dims.algebra.resolve(t.axis)))]


def seen_at(dims: DimsSolver, sizes: Mapping[Atom, int], node: str) -> frozenset[Atom]:
    """Growing units that the operators of a node see."""
    values = (value for op in dims.program.node_ops.get(node, ()) for value in (*op.inputs(), *op.outputs))
    return frozenset(atom for value in values for atom in dims.held(value) if atom in sizes)
