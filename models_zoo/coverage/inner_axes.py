"""The inner axes of a model: what can be asked to grow, each once, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import fx

import fxgrow
from fxgrow.analysis.analysis import Analysis
from fxgrow.analysis.solver import DimsSolver
from fxgrow.dims.axis import Atom, Axis
from fxgrow.planning.decompose_attention import closed
from fxgrow.planning.targets import paths
from fxgrow.planning.widths import chosen_atoms

from .findings import Ask, Grow

FACTORS = (1.25, 2.0)
"""Small growths show the same mistakes as large ones, and their odd numbers of new units show more; uniform copies need
twice the width."""
INTERFACE = frozenset({fxgrow.Kind.INPUT, fxgrow.Kind.OUTPUT})
"""What is fixed by the inputs or the outputs of a model is not one of its inner axes."""
ENDS: tuple[Grow, ...] = ("channels", "groups")


@dataclass(frozen=True, slots=True)
class Inner:
    """One axis, and what became of it."""

    ask: Ask
    width: int
    alone: bool
    """Whether it is the only axis of its layer: of attention the heads and the features of a head are two."""
    refusal: fxgrow.Refusal | None = None

    @property
    def name(self) -> str:
        """In words."""
        return self.ask.name if self.ask.grow == "channels" else f"{self.ask.name} (groups)"

    @property
    def inner(self) -> bool:
        """Whether it is one that neither the inputs nor the outputs fix."""
        return self.refusal is None or self.refusal.kind not in INTERFACE


def asks(gm: fx.GraphModule, analysis: Analysis) -> Iterator[Inner]:
    """Each axis once, however many layers are born in it; of products both ends, if both may grow.

    Args:
        gm: a traced model.
        analysis: of that.
    """
    dims = analysis.dims
    seen: set[object] = set()
    for name, producer in paths(gm, dims).items():
        axis = dims.algebra.resolve(producer.axis)
        if axis in seen:
            continue
        seen.add(axis)
        width = dims.algebra.measure(axis)
        units = [frozenset(_in_step(dims, chosen_atoms(dims, axis, end))) for end in ENDS]
        whole: list[frozenset[object] | tuple[Axis, Grow]] = [*units]
        if not units[0] and closed(gm, dims, axis):  # attention that can be written out hides both ends
            whole = [(axis, end) for end in ENDS]
        alone = whole[0] == whole[1]
        for end, key in zip(ENDS[: 1 if alone else 2], whole, strict=False):
            if key and key in seen:
                continue
            seen.add(key)
            yield Inner(Ask(name, end), width, alone)


def _in_step(dims: DimsSolver, atoms: Iterable[Atom]) -> list[Atom]:
    """Atoms, and all that have to have their sizes, but for those that may not grow: they let the others go alone."""
    found = list(atoms)
    ties = [tuple(map(dims.algebra.resolve, tie)) for tie in dims.algebra.ties]
    for atom in found:
        for one, other in (*ties, *((b, a) for a, b in ties)):
            if one != atom or not isinstance(other, Atom) or other in found:
                continue
            if other.index not in dims.algebra.frozen:
                found.append(other)
    return found


def planned(gm: fx.GraphModule, ask: Ask) -> fxgrow.Plan | fxgrow.Refusal:
    """The plan for one axis, by as little of the factors as can be; or why there is none, by the first of them."""
    first: fxgrow.Refusal | None = None
    for factor in FACTORS:
        try:
            return fxgrow.plan_widen(gm, ask.name, factor=factor, grow=ask.grow)
        except fxgrow.FxgrowError as refused:
            first = first or refused.refusal
    assert first is not None
    return first
