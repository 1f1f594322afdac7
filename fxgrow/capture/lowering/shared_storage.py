"""Find tensors that share memory but are different objects, as after `b.weight = nn.Parameter(a.weight.data)`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import combinations

import torch
from torch import Tensor


def place_of(tensor: Tensor) -> Hashable:
    """Return a key for the memory location of a tensor: equal for tensors with the same storage, offset, shape, strides
    and dtype. It is valid while the tensor is alive."""
    if tensor.numel() == 0:
        return id(tensor)
    storage = _storage(tensor)
    if storage is None:
        return id(tensor)
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def in_storages_of(some: Iterable[Tensor], tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return those of `tensors` that share a storage with one of `some`."""
    known = {_storage(tensor) for tensor in some}
    return [tensor for tensor in tensors if _storage(tensor) in known]


def overlapping(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return groups of tensors that share entries. Disjoint parts of one storage (cuDNN's RNN weights) share none."""
    by_storage: dict[int, dict[int, Tensor]] = {}
    for tensor in tensors:
        storage = _storage(tensor)
        if storage is not None and tensor.numel():
            by_storage.setdefault(storage, {})[id(tensor)] = tensor
    found: list[list[Tensor]] = []
    for some in by_storage.values():
        groups: list[list[Tensor]] = [[tensor] for tensor in some.values()]
        for a, b in combinations(some.values(), 2):
            one, other = (next(g for g in groups if any(t is x for t in g)) for x in (a, b))
            if one is not other and _meet(a, b):
                groups = [g for g in groups if g is not one and g is not other] + [one + other]
        found += [group for group in groups if len(group) > 1]
    return found


def _storage(tensor: Tensor) -> int | None:
    """Return the identity of a tensor's storage; None if it has no storage (sparse tensors)."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def _meet(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors in the same storage overlap."""
    (first, last), (start, end) = _range(a), _range(b)
    if last <= start or end <= first:
        return False
    if a.dtype != b.dtype or a.is_contiguous() or b.is_contiguous():
        return True
    low = min(a.storage_offset(), b.storage_offset())  # perhaps interleaved rows or columns
    taken = torch.zeros(max(last, end) // a.element_size() - low, dtype=torch.bool, device="cpu")
    taken.as_strided(a.shape, a.stride(), a.storage_offset() - low).fill_(True)
    return bool(taken.as_strided(b.shape, b.stride(), b.storage_offset() - low).any())


def _range(tensor: Tensor) -> tuple[int, int]:
    """Return the byte range of a tensor in its storage, as start and end (exclusive)."""
    size, start = tensor.element_size(), int(tensor.storage_offset())
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start * size, (start + int(reach) + 1) * size
