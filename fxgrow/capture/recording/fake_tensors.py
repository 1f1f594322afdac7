"""Fake tensors that stand for real ones: no data, but the value of a buffer of one element, which code may read."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch

from ..locks import ONE_AT_A_TIME
from ..program.call_key import Meta, meta_of


def has_known_value(tensor: Tensor) -> bool:
    """Whether a recording may read a tensor as a number: a buffer of one element, such as a counter of batches.

    Not a parameter, whose value is learned, nor a tensor without data (meta, fake).
    """
    return (
        type(tensor) is Tensor
        and tensor.numel() == 1
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and not tensor.is_quantized
        and not tensor.requires_grad
    )


def standing_for(tensor: Tensor | None, meta: Meta) -> Tensor | None:
    """A tensor of one element for code that reads a tensor as a number: the tensor itself, or one that holds zero where
    its value is not known (it is computed, or lies on the meta device). None where there is more than one element, or
    where the value is a parameter's."""
    if tensor is not None and (isinstance(tensor, nn.Parameter) or meta_of(tensor) != meta):
        return None
    if tensor is not None and has_known_value(tensor):
        return tensor
    shape, _, dtype, device = meta
    if prod(shape) != 1:
        return None
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype, device="cpu" if device.type == "meta" else device)


def fake_of(tensor: Tensor, mode: FakeTensorMode) -> FakeTensor:
    """A new fake tensor of the shape, strides, dtype and device of a real one, which is not touched.

    Where `has_known_value` says so, the fake carries a copy of the value: `item()`, `float(…)`, `if buffer:` work on
    it, and in-place operators on it (`add_(1)`) change the copy. So use each fake in one recording only.
    """
    if not has_known_value(tensor):
        return empty_fake(meta_of(tensor), mode)
    with torch.inference_mode(False), torch.no_grad():
        value = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
        value.copy_(tensor)
    # The converter remembers which fake a constant belongs to, so that an in-place operator returns the same object.
    with ONE_AT_A_TIME:
        return mode.fake_tensor_converter.from_real_tensor(mode, value, make_constant=True)


def empty_fake(meta: Meta, mode: FakeTensorMode) -> FakeTensor:
    """A new fake tensor of a known shape, whose values nobody knows."""
    shape, stride, dtype, device = meta
    with ONE_AT_A_TIME, no_dispatch():
        return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)
