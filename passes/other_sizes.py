"""Whether a new block takes what passes its place for inputs of other sizes, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxgrow.analysis import Analysis
from fxgrow.capture.build import lower
from fxgrow.capture.containers import found
from fxgrow.capture.program import Program, Value
from fxgrow.capture.snapshot import Snapshot
from fxgrow.capture.source import location
from fxgrow.dims.axis import Atom, Axis, atoms, factors_of, terms_of
from fxgrow.errors import FxgrowError, GrowthRefused, Kind, Refusal

from .positions import Position

Beside = Callable[[Program], Sequence[Any]]
"""What else a block reads, in a program of the model."""


def check_other_sizes(
    gm: fx.GraphModule, analysis: Analysis, position: Position, block: fx.GraphModule, beside: Beside, where: str
) -> None:
    """Refuse a block that takes the sizes of the example only: its layers would be as wide as an image is high, say.

    The second sizes are looked at only if the block does not take other sizes along the axes that may have them.

    Args:
        gm: the model.
        analysis: of the model.
        position: where the block is to stand.
        block: it takes what passes there for the example inputs.
        beside: what else it reads.
        where: the place, in words.

    Raises:
        GrowthRefused: the model takes inputs of other sizes, and the block would not.
    """
    value = position.value
    if _takes(block, _longer(gm, analysis, value), value.dtype, beside(analysis.program)):
        return
    second = analysis.second(gm)
    other = second.results.get(position.node.name) if second is not None else None
    if second is None or not isinstance(other, Value) or other.shape == value.shape:
        return
    if _takes(block, other.shape, value.dtype, beside(second)):
        return
    now, then = ("x".join(map(str, shape)) for shape in (value.shape, other.shape))
    raise GrowthRefused(
        Refusal(
            Kind.NO_VALUE,
            f"{where} {now} passes for the example inputs and {then} for others, and the block would take {now} only",
            where=location(gm, position.node.name),
            chain=(position.node.name,),
            hint="name a place where the block's channels are a width of the model, or another norm= or block=",
        )
    )


def _longer(gm: fx.GraphModule, analysis: Analysis, value: Value) -> tuple[int, ...]:
    """The shape with one entry more along every axis that is not a width of the model."""
    dims = analysis.dims
    own = {atom for v in dims.program.parameters.values() for axis in dims.resolved(v) for atom in atoms(axis)}
    own -= _varying(gm, analysis)
    widths = [_is_made_of(axis, own) for axis in dims.resolved(value)]
    return tuple(n if width else n + 1 for n, width in zip(value.shape, widths, strict=True))


def _is_made_of(axis: Axis, own: set[Atom]) -> bool:
    """Whether an axis is made of some atoms alone: a fixed factor may be a size of the input."""
    return all(part in own for term in terms_of(axis) for part in factors_of(term))


def _varying(gm: fx.GraphModule, analysis: Analysis) -> set[Atom]:
    """Widths that inputs of other sizes have otherwise, because the model repeats what has one entry only."""
    dims, found_at = analysis.dims, set[Atom]()
    for known in gm.meta.get("fxgrow_second", ()):
        tensors = found(known, Tensor)
        if len(tensors) == len(dims.program.inputs):
            for value, other in zip(dims.program.inputs, tensors, strict=True):
                axes = zip(dims.resolved(value), value.shape, other.shape, strict=False)
                found_at.update(atom for axis, now, then in axes if now != then for atom in atoms(axis))
    return found_at


def _takes(block: fx.GraphModule, shape: tuple[int, ...], dtype: torch.dtype, beside: Sequence[Any]) -> bool:
    try:
        lower(Snapshot(block), (torch.empty(shape, dtype=dtype, device="meta"), *beside))
    except FxgrowError:
        return False
    return True
