"""Checks the tensors of a grown model: old entries are unchanged or changed as planned, and dtypes and formats stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from ...plans import Plan, TensorEdit
from ...plans.layout import old_positions
from ...rewrite.apply import tensors_of
from ...verification.compare import distance

SCALED = 1e-15
"""Largest error of a scaled entry in float64: the product is rounded once."""
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class EntriesChanged(Exception):
    """A tensor has changed in a way that the plan does not list; the message names it."""


def steps(plan: Plan) -> Iterator[Plan]:
    """Yield a plan and the plans that follow it."""
    yield plan
    yield from plan.then


def edits_of(plan: Plan) -> dict[str, list[TensorEdit]]:
    """Return the edits of the tensor of each name, in order."""
    found: dict[str, list[TensorEdit]] = {}
    for one in steps(plan):
        for edit in one.tensors:
            for name in edit.names:
                found.setdefault(name, []).append(edit)
    return found


def old_entries(tensor: Tensor, edits: Sequence[TensorEdit]) -> Tensor:
    """Return the old entries of a grown tensor, in their old order."""
    for edit in reversed(edits):
        for growth in edit.axes:
            places = torch.tensor(old_positions(growth.layout), device=tensor.device)
            tensor = tensor.index_select(growth.axis, places)
    return tensor


def look(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Compare every tensor with its state before growth.

    Raises:
        EntriesChanged: old entries differ from the plan, or the dtype, device, flags or memory format changed.
    """
    old, new, edits = tensors_of(model), tensors_of(grown), edits_of(plan)
    for name in [one for one in old if one in new]:  # in order, so that the first changed tensor is reported
        _same_kind(name, old[name], new[name])
        mine = edits.get(name, [])
        if any("split" in edit.states for edit in mine):
            continue  # shares: only their sums stay, which the outputs show
        _same_entries(name, old[name], old_entries(new[name], mine), [edit.scale for edit in mine])
    some = {t.dtype for t in old.values() if t.is_floating_point()}
    for name in new.keys() - old.keys():
        if len(some) == 1 and new[name].is_floating_point() and new[name].dtype not in some:
            raise EntriesChanged(f"{name} is {new[name].dtype}, unlike all other tensors")


def _same_kind(name: str, old: Tensor, new: Tensor) -> None:
    for what in ("dtype", "device", "requires_grad"):
        if getattr(old, what) != getattr(new, what):
            raise EntriesChanged(f"{name}: {what} was {getattr(old, what)} and is {getattr(new, what)}")
    form = _format(old)
    if form is not None and not new.is_contiguous(memory_format=form):
        raise EntriesChanged(f"{name}: strides were {old.stride()} and are {new.stride()}")


def _format(tensor: Tensor) -> torch.memory_format | None:
    """Return the memory format of a tensor; None if it has none of the usual ones."""
    if tensor.is_contiguous():
        return torch.contiguous_format
    form = FORMATS.get(tensor.dim())
    return form if form is not None and tensor.is_contiguous(memory_format=form) else None


def _same_entries(name: str, old: Tensor, kept: Tensor, scales: Sequence[float]) -> None:
    if old.shape != kept.shape:
        raise EntriesChanged(f"{name}: {tuple(kept.shape)} old entries, and there were {tuple(old.shape)}")
    if all(scale == 1.0 for scale in scales):
        if not torch.equal(old, kept):
            raise EntriesChanged(f"{name}: old entries changed")
        return
    if old.dtype is torch.float64:
        for scale in scales:
            old = old * scale
        if distance(old, kept) > SCALED:
            raise EntriesChanged(f"{name}: old entries are not the original ones times {scales}")


def shapes(model: fx.GraphModule) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of all tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(model).items()}
