"""Tensors that `forward` makes from numbers alone: torch.fx computes them while it traces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from ..containers import found, replaced
from ..schemas import Spec
from .recorder import Call, storage_of

_FILLS = frozenset({"aten::fill", "aten::zero"})
"""Writes after which it does not matter what a tensor has held."""
UNFILLED = ("aten::empty", "aten::new_empty")
"""Operators that return memory as they find it begin so."""
LARGEST_CONSTANT = 2**20
"""Tensors of more elements that are made from numbers alone are compared by how they are made."""

ValueOf = Callable[[Tensor], Tensor | None]
"""The value of a tensor in a recording; None if it depends on more than numbers."""


class Constants:
    """What is known of the values of such tensors."""

    def __init__(self) -> None:
        self.values: dict[int, Tensor] = {}
        """By the number of its expression, the value of a tensor."""
        self.unfilled: set[int] = set()
        """Storages that hold nothing yet."""
        self.memory: dict[int, Tensor] = {}
        """By storage, the bytes it holds, where `forward` has written numbers to it."""

    def made(self, call: Call, value_of: ValueOf) -> Tensor | None:
        """What an operator returns; None if that depends on more than numbers."""
        func, args, kwargs, out = call
        if not isinstance(out, Tensor) or out.numel() > LARGEST_CONSTANT or storage_of(out) in self.unfilled:
            return None
        known = {id(t): value_of(t) for t in found((args, kwargs), Tensor)}
        if any(value is None for value in known.values()):
            return None
        value = _run(func, args, kwargs, lambda t: known[id(t)])
        return value if isinstance(value, Tensor) and value.shape == out.shape else None

    def known(self, target: Tensor, spec: Spec, value_of: ValueOf, tensors: Sequence[Tensor]) -> bool:
        """Whether all that the memory of a tensor holds is known, or will be when this operator has written to it.

        Args:
            target: the tensor that is written to.
            spec: the operator.
            value_of: the values of tensors.
            tensors: all tensors of the recording so far; those that share the memory say what it holds.
        """
        storage = storage_of(target)
        if storage in self.memory:
            return True
        size = target.untyped_storage().nbytes()
        fills = spec.name in _FILLS and storage in self.unfilled and target.nbytes == size
        if size > LARGEST_CONSTANT * target.element_size() or (not fills and value_of(target) is None):
            return False
        views = {id(t): t for t in tensors if storage_of(t) == storage}
        image = torch.zeros(size, dtype=torch.uint8)
        for view in views.values():
            value = value_of(view)
            if value is not None:
                _view(image, view).copy_(value)
        self.memory[storage] = image
        return True

    def write(self, call: Call, target: Tensor, value_of: ValueOf) -> bool:
        """Write to known memory what an operator writes; false if that depends on more than numbers."""
        func, args, kwargs, _ = call
        storage = storage_of(target)
        known = {
            id(t): _view(self.memory[storage], t) if storage_of(t) == storage else value_of(t)
            for t in found((args, kwargs), Tensor)
        }
        if any(value is None for value in known.values()):
            return False
        if _run(func, args, kwargs, lambda t: known[id(t)]) is None:
            return False
        self.unfilled.discard(storage)
        return True

    def read(self, tensor: Tensor) -> Tensor | None:
        """What a tensor holds now, if its memory is known."""
        image = self.memory.get(storage_of(tensor))
        return None if image is None else _view(image, tensor).clone()


def by_value(tensor: Tensor) -> tuple[str, tuple[int, ...], str, str]:
    """A tensor by its contents; on the meta device it has none."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    if tensor.is_meta or tensor.layout is not torch.strided:
        return "constant", shape, dtype, tensor.device.type
    with torch.inference_mode(False), torch.no_grad():
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return "constant", shape, dtype, hashlib.sha256(data).hexdigest()


def _view(image: Tensor, tensor: Tensor) -> Tensor:
    """The entries of memory that a tensor shows."""
    entries = torch.empty(0, dtype=tensor.dtype)
    return entries.set_(image.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _run(func: Any, args: tuple[Any, ...], kwargs: Any, value: Callable[[Tensor], Any]) -> Any:
    """What an operator returns, given the values of its tensors on the CPU; None if it fails."""
    try:
        with no_dispatch(), torch.no_grad():
            given, named = (_on_the_cpu(replaced(tree, Tensor, value)) for tree in (args, kwargs))
            return func(*given, **named)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # then the call is compared, and not its result
        return None


def _on_the_cpu(tree: Any) -> Any:
    """The same arguments with another device: constants are compared by value, wherever they lie."""
    return replaced(tree, torch.device, lambda device: device if device.type == "meta" else torch.device("cpu"))
