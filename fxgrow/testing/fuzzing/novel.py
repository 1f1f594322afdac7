"""Checks new weights: they are not all zero, no two tensors have the same, and padding rows stay zero."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from ...plans import Plan, TensorEdit
from ...plans.layout import Layout, leaves, old_positions, partners
from ...rewrite.apply import tensors_of
from .promises import LawBroken

ENOUGH = 8
"""Least number of entries for which equality (up to a factor) of two tensors is not a coincidence."""
ALIKE = 1e-6
"""Tolerance of this comparison: new values are drawn in float32, and scaled."""
DRAWN = frozenset({"even", "odd", "free"})
"""States in which new units get drawn values. A unit of "odd" without a twin is zero."""


def novel(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Check the new entries of all weights; of a plan with several steps, only the padding rows.

    Raises:
        LawBroken: new entries are all zero, two tensors got the same, or a padding row is not zero.
    """
    _padding(model, grown)
    known = list[tuple[str, Tensor]]()
    for edit in plan.tensors if not plan.then else ():
        for block in _drawn(edit, tensors_of(grown)[edit.names[0]].detach()):
            name = edit.names[0]
            if not bool(block.any()):
                raise LawBroken("new weights are not all zero", name)
            whole = block / block.norm()
            for other, seen in known:
                if seen.shape == whole.shape and float((seen - whole).abs().max()) < ALIKE:
                    raise LawBroken("each tensor gets new values of its own", f"{other} and {name}")
            if block.numel() >= ENOUGH:
                known.append((name, whole))


def _drawn(edit: TensorEdit, tensor: Tensor) -> Iterator[Tensor]:
    """Yield, for each axis, the new entries along this axis only; entries that are new along two axes satisfy both
    states."""
    if edit.fill != "weights" or len(edit.new) < 2:
        return
    for growth in edit.axes:
        block = tensor
        for other in edit.axes:
            places = _new(growth.layout) if other is growth else old_positions(other.layout)
            block = block.index_select(other.axis, torch.tensor(places, dtype=torch.long, device=tensor.device))
        if block.numel():
            yield block


def _new(layout: Layout) -> list[int]:
    found = list[int]()
    for number, leaf in enumerate(leaves(layout)):
        if leaf.state in DRAWN:
            left, right, lone = partners(layout, number)
            found += [*left, *right, *(lone if leaf.state != "odd" else ())]
    return sorted(found)


def _padding(model: fx.GraphModule, grown: fx.GraphModule) -> None:
    old = dict(model.named_modules())
    for name, module in grown.named_modules():
        before = old.get(name)
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag) or not isinstance(before, type(module)):
            continue
        row = module.padding_idx
        if row is not None and not bool(before.weight[row].any()) and bool(module.weight[row].any()):
            raise LawBroken("padding rows stay zero", name)
