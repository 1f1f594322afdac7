"""Create fake tensors for real ones. They have no data, except that a one-element buffer keeps its value."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch

from ..locks import ONE_AT_A_TIME
from ..program.call_key import Meta, meta_of


def has_known_value(tensor: Tensor) -> bool:
    """Return whether a recording may read a tensor as a number: a one-element buffer, such as `num_batches_tracked`.

    False for a parameter, whose value is learned, and for a tensor without data (meta, fake).
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
    """Return a one-element tensor for code that reads a tensor as a number: the tensor itself, or a zero if its value
    is not known (it is computed, or on the meta device). Return None if it has several elements, is a parameter, or
    does not have the metadata `meta`."""
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
    """Return a new fake tensor with the shape, strides, dtype and device of a real tensor, which is not modified.

    If `has_known_value` is true, the fake carries a copy of the value: `item()`, `float(…)` and `if buffer:` work on
    it, and in-place operators such as `add_(1)` change the copy. Such a fake must be used in one recording only.
    """
    if not has_known_value(tensor):
        return empty_fake(meta_of(tensor), mode)
    with torch.inference_mode(False), torch.no_grad():
        value = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
        value.copy_(tensor)
    # The converter tracks which fake a constant belongs to, so that an in-place operator returns the same object.
    with ONE_AT_A_TIME:
        return mode.fake_tensor_converter.from_real_tensor(mode, value, make_constant=True)


def empty_fake(meta: Meta, mode: FakeTensorMode) -> FakeTensor:
    """Return a new fake tensor with the given shape, strides, dtype and device, and without a known value."""
    shape, stride, dtype, device = meta
    with ONE_AT_A_TIME, no_dispatch():
        return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)
