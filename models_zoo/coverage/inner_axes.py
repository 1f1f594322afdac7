"""The inner axes of a model, each listed once, and whether it can grow."""

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
"""Growth factors, tried in this order. Small growths reveal the same errors as large ones, and odd numbers of new units
reveal more; uniform copies need twice the width."""
INTERFACE = frozenset({fxgrow.Kind.INPUT, fxgrow.Kind.OUTPUT})
"""Kinds of refusal for axes that are fixed by the inputs or outputs of a model, which are not inner axes."""
ENDS: tuple[Grow, ...] = ("channels", "groups")


@dataclass(frozen=True, slots=True)
class Inner:
    """One axis, and the refusal if it cannot grow."""

    ask: Ask
    width: int
    alone: bool
    """Whether it is the layer's only axis; attention has two, the heads and the features of a head."""
    refusal: fxgrow.Refusal | None = None

    @property
    def name(self) -> str:
        """The name of the layer, with the factor if it is not the channels."""
        return self.ask.name if self.ask.grow == "channels" else f"{self.ask.name} (groups)"

    @property
    def inner(self) -> bool:
        """Whether the axis is not fixed by the inputs or outputs."""
        return self.refusal is None or self.refusal.kind not in INTERFACE


def asks(gm: fx.GraphModule, analysis: Analysis) -> Iterator[Inner]:
    """Yield each axis once, even if several layers produce it; for products both factors, if both may grow.

    Args:
        gm: a traced model.
        analysis: its analysis.
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
        if not units[0] and closed(gm, dims, axis):  # attention that can be decomposed hides both factors
            whole = [(axis, end) for end in ENDS]
        alone = whole[0] == whole[1]
        for end, key in zip(ENDS[: 1 if alone else 2], whole, strict=False):
            if key and key in seen:
                continue
            seen.add(key)
            yield Inner(Ask(name, end), width, alone)


def _in_step(dims: DimsSolver, atoms: Iterable[Atom]) -> list[Atom]:
    """Return atoms together with all atoms of tied size, except frozen ones, which do not prevent the others from
    growing."""
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
    """Return the plan for one axis with the smallest factor that works, or the refusal of the first factor."""
    first: fxgrow.Refusal | None = None
    for factor in FACTORS:
        try:
            return fxgrow.plan_widen(gm, ask.name, factor=factor, grow=ask.grow)
        except fxgrow.FxgrowError as refused:
            first = first or refused.refusal
    assert first is not None
    return first
