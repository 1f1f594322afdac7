"""What a growth does to tensors that are there: old entries stay, or change as the plan says; kinds of tensors stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from ...plans import Plan, TensorEdit
from ...plans.layout import old_positions
from ...rewrite.apply import tensors_of
from ...verification.compare import distance

SCALED = 1e-15
"""Of a scaled entry in float64: the product is rounded once."""
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class EntriesChanged(Exception):
    """Some tensor is not what it was; the message names it."""


def steps(plan: Plan) -> Iterator[Plan]:
    """A plan and those that follow it."""
    yield plan
    yield from plan.then


def edits_of(plan: Plan) -> dict[str, list[TensorEdit]]:
    """For each name what happens to its tensor, in order."""
    found: dict[str, list[TensorEdit]] = {}
    for one in steps(plan):
        for edit in one.tensors:
            for name in edit.names:
                found.setdefault(name, []).append(edit)
    return found


def old_entries(tensor: Tensor, edits: Sequence[TensorEdit]) -> Tensor:
    """Those entries of a grown tensor that were there before, in their old order."""
    for edit in reversed(edits):
        for growth in edit.axes:
            places = torch.tensor(old_positions(growth.layout), device=tensor.device)
            tensor = tensor.index_select(growth.axis, places)
    return tensor


def look(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Compare every tensor with what it was.

    Raises:
        EntriesChanged: one has other old entries than the plan says, or is of another kind.
    """
    old, new, edits = tensors_of(model), tensors_of(grown), edits_of(plan)
    for name in [one for one in old if one in new]:  # in their order, so that the first one that changed is told
        _same_kind(name, old[name], new[name])
        mine = edits.get(name, [])
        if any("split" in edit.states for edit in mine):
            continue  # shares: only their sums are as before, which the outputs show
        _same_entries(name, old[name], old_entries(new[name], mine), [edit.scale for edit in mine])
    some = {t.dtype for t in old.values() if t.is_floating_point()}
    for name in new.keys() - old.keys():
        if len(some) == 1 and new[name].is_floating_point() and new[name].dtype not in some:
            raise EntriesChanged(f"{name} is {new[name].dtype}, as nothing else")


def _same_kind(name: str, old: Tensor, new: Tensor) -> None:
    for what in ("dtype", "device", "requires_grad"):
        if getattr(old, what) != getattr(new, what):
            raise EntriesChanged(f"{name}: {what} was {getattr(old, what)} and is {getattr(new, what)}")
    form = _format(old)
    if form is not None and not new.is_contiguous(memory_format=form):
        raise EntriesChanged(f"{name}: strides were {old.stride()} and are {new.stride()}")


def _format(tensor: Tensor) -> torch.memory_format | None:
    """How the entries of a tensor lie in memory; None if in no usual way."""
    if tensor.is_contiguous():
        return torch.contiguous_format
    form = FORMATS.get(tensor.dim())
    return form if form is not None and tensor.is_contiguous(memory_format=form) else None


def _same_entries(name: str, old: Tensor, kept: Tensor, scales: Sequence[float]) -> None:
    if old.shape != kept.shape:
        raise EntriesChanged(f"{name}: {tuple(kept.shape)} old entries, and there were {tuple(old.shape)}")
    if all(scale == 1.0 for scale in scales):
        if not torch.equal(old, kept):
            raise EntriesChanged(f"{name}: old entries are not as they were")
        return
    if old.dtype is torch.float64:
        for scale in scales:
            old = old * scale
        if distance(old, kept) > SCALED:
            raise EntriesChanged(f"{name}: old entries are not what they were, times {scales}")


def shapes(model: fx.GraphModule) -> Mapping[str, tuple[int, ...]]:
    """Of all tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(model).items()}
