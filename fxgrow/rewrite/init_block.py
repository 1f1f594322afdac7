"""Fills the tensors of new blocks: default, drawn, zero or identity values, made into equal or opposite halves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..plans.insertion import BlockTensor, Insert
from ..plans.layout import leaves, partners
from .new_values import generator, spread


def fill_block(block: nn.Module, insert: Insert, originals: Mapping[str, Tensor], seed: int, init: str) -> None:
    """Write the values of a new block, before it is moved to its device and dtype.

    Args:
        block: the block, with the default initialization of its modules.
        insert: the plan of the block.
        originals: the model's tensors by name; new weights are drawn with the spread of one of them.
        seed: the seed; values depend on it and on the parameter's name.
        init: "match" (the spread of the original), "kaiming", "xavier", or "copy".
    """
    tensors = {
        **dict(block.named_parameters(remove_duplicate=False)),
        **dict(block.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for new in insert.tensors:
            tensor = tensors[new.name]
            module = block.get_submodule(new.name.rpartition(".")[0])
            if new.fill == "zero":
                tensor.zero_()
            if new.fill in ("draw", "isometry"):
                _draw(tensor, new, f"{insert.name}.{new.name}", originals, seed, init)
            if new.fill in ("identity", "isometry"):
                _identity(module, tensor)
            _halve(tensor, new)


def _draw(tensor: Tensor, new: BlockTensor, name: str, originals: Mapping[str, Tensor], seed: int, init: str) -> None:
    """Draw uniformly on (-s √3, s √3), where s is the standard deviation of the original (the paper's appendix)."""
    original = originals.get(new.like) if init in ("match", "copy") else None
    if original is not None and not original.is_meta:
        bound = spread(original, "match", True) * math.sqrt(3)
    else:
        bound = spread(tensor, init if init in ("kaiming", "xavier") else "xavier", True) * math.sqrt(3)
    drawn = torch.empty(tensor.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator(seed, name))
    tensor.copy_(drawn)


def _identity(module: nn.Module, tensor: Tensor) -> None:
    """Write the identity to the leading outputs of each group; of a variance, the value that makes a norm divide by
    one."""
    if tensor.dim() == 1:
        epsilon = module.eps
        assert isinstance(epsilon, float)
        tensor.fill_(1 - epsilon)
        return
    groups = getattr(module, "groups", 1)
    assert isinstance(groups, int)
    inputs, rows = tensor.shape[1], tensor.shape[0] // groups
    centre = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for unit in range(min(inputs, rows)):
            tensor[group * rows + unit] = 0
            tensor[(group * rows + unit, unit, *centre)] = 1


def _halve(tensor: Tensor, new: BlockTensor) -> None:
    """Make right halves equal or opposite to left halves; a unit without a twin is set to zero if they are opposite."""
    for growth in new.axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            left, right, lone = partners(growth.layout, number)
            index = [torch.tensor(places, device=tensor.device, dtype=torch.int64) for places in (left, right, lone)]
            twins = tensor.index_select(growth.axis, index[0])
            if leaf.state == "odd":
                tensor.index_copy_(growth.axis, index[1], -twins)
                tensor.index_fill_(growth.axis, index[2], 0)
            elif leaf.state == "even":
                tensor.index_copy_(growth.axis, index[1], twins)
            else:
                tensor.index_fill_(growth.axis, torch.cat(index), 0)
