"""Whether a new block takes what passes its place for inputs of other sizes, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxgrow.analysis import Analysis
from fxgrow.capture.build import lower
from fxgrow.capture.program import Program, Value
from fxgrow.capture.snapshot import Snapshot
from fxgrow.capture.source import location
from fxgrow.dims.axis import Atom, Axis, atoms, factors_of, terms_of
from fxgrow.errors import FxgrowError, GrowthRefused, Kind, Refusal

from .positions import Position

Beside = Callable[[Program], Sequence[Any]]
"""What else a block reads, in a program of the model."""


FURTHER = ((4, 1), (2, 1), (1, 2))
"""Sizes of inputs, as (multiple, divisor) of the example's, where the second ones may be no other size at a place: what
is pooled to one position may be more of them only for an image several times as high."""


def check_other_sizes(
    gm: fx.GraphModule, analysis: Analysis, position: Position, block: fx.GraphModule, beside: Beside, where: str
) -> None:
    """Refuse a block that takes the sizes of the example only: its layers would be as wide as an image is high, say.

    Sizes beyond the second ones are looked at only if the block does not take others along the axes that may have them.

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
    second = analysis.second(gm)
    if second is None:
        return
    value, name = position.value, position.node.name
    _check(gm, position, block, second, beside, where)
    if _takes(block, _longer(analysis, value, _shape(second, name)), value.dtype, beside(analysis.program)):
        return
    for times, over in FURTHER:
        sizes = {(first, other): max(first * times // over, 1) for first, other in analysis.following()}
        further = analysis.further(gm, sizes)
        if further is not None:
            _check(gm, position, block, further, beside, where)


def _check(
    gm: fx.GraphModule, position: Position, block: fx.GraphModule, program: Program, beside: Beside, where: str
) -> None:
    """Refuse a block that does not take what passes its place in a program of other sizes."""
    value, shape = position.value, _shape(program, position.node.name)
    if shape in ((), value.shape) or _takes(block, shape, value.dtype, beside(program)):
        return
    now, then = ("x".join(map(str, some)) for some in (value.shape, shape))
    raise GrowthRefused(
        Refusal(
            Kind.NO_VALUE,
            f"{where} {now} passes for the example inputs and {then} for others, and the block would take {now} only",
            where=location(gm, position.node.name),
            chain=(position.node.name,),
            hint="name a place where the block's channels are a width of the model, or another norm= or block=",
        )
    )


def _shape(program: Program, node: str) -> tuple[int, ...]:
    """The shape of what a node returns; () if that is not one tensor."""
    found = program.results.get(node)
    return found.shape if isinstance(found, Value) else ()


def _longer(analysis: Analysis, value: Value, second: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with one entry more along every axis that may have another size.

    An axis is a width of the model if parameters alone give its size. One of a single entry may have met a parameter
    that is repeated along it, and one that has another size for the second inputs has met one that is cut to it.
    """
    dims = analysis.dims
    own = {atom for v in dims.program.parameters.values() for axis in dims.resolved(v) for atom in atoms(axis)}
    others = second if len(second) == len(value.shape) else value.shape
    axes = zip(value.shape, others, dims.resolved(value), strict=True)
    return tuple(n if n == other and n > 1 and _is_made_of(axis, own) else n + 1 for n, other, axis in axes)


def _is_made_of(axis: Axis, own: set[Atom]) -> bool:
    """Whether an axis is made of some atoms alone: a fixed factor may be a size of the input."""
    return all(part in own for term in terms_of(axis) for part in factors_of(term))


def _takes(block: fx.GraphModule, shape: tuple[int, ...], dtype: torch.dtype, beside: Sequence[Any]) -> bool:
    try:
        lower(Snapshot(block), (torch.empty(shape, dtype=dtype, device="meta"), *beside))
    except FxgrowError:
        return False
    return True
