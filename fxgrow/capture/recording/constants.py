"""Values of tensors that `forward` makes from numbers alone, and that torch.fx therefore computes at trace time."""

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
"""In-place operators that overwrite every element."""
UNFILLED = ("aten::empty", "aten::new_empty")
"""Prefixes of the operators that return uninitialized memory."""
LARGEST_CONSTANT = 2**20
"""Largest constant, in elements, that is compared by value; a larger one is compared by the operators that make it."""

ValueOf = Callable[[Tensor], Tensor | None]
"""Returns the value of a tensor in a recording; None if it is not a constant."""


class Constants:
    """The known values of the constant tensors of one recording, with the writes into them."""

    def __init__(self) -> None:
        self.values: dict[int, Tensor] = {}
        """Maps the number of an expression to the value of its tensor."""
        self.unfilled: set[int] = set()
        """Storages that are not initialized yet."""
        self.memory: dict[int, Tensor] = {}
        """Maps a storage to its bytes, for storages into which `forward` wrote constants."""

    def made(self, call: Call, value_of: ValueOf) -> Tensor | None:
        """Return the result of an operator call; None if it is not a constant."""
        func, args, kwargs, out = call
        if not isinstance(out, Tensor) or out.numel() > LARGEST_CONSTANT or storage_of(out) in self.unfilled:
            return None
        known = {id(t): value_of(t) for t in found((args, kwargs), Tensor)}
        if any(value is None for value in known.values()):
            return None
        value = _run(func, args, kwargs, lambda t: known[id(t)])
        return value if isinstance(value, Tensor) and value.shape == out.shape else None

    def known(self, target: Tensor, spec: Spec, value_of: ValueOf, tensors: Sequence[Tensor]) -> bool:
        """Return whether all bytes of a tensor's storage are known, or will be after this operator has written to it.

        Args:
            target: the tensor that is written to.
            spec: the schema of the operator.
            value_of: returns the value of a tensor.
            tensors: all tensors of the recording so far; views of the same storage provide its contents.
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
        """Apply an in-place operator to the known bytes of a storage; return False if an operand is not a constant."""
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
        """Return the current value of a tensor; None if the bytes of its storage are not known."""
        image = self.memory.get(storage_of(tensor))
        return None if image is None else _view(image, tensor).clone()


def by_value(tensor: Tensor) -> tuple[str, tuple[int, ...], str, str]:
    """Return a key that is equal for tensors of equal shape, dtype and contents.

    A meta or non-strided tensor is identified by its shape, dtype and device only.
    """
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    if tensor.is_meta or tensor.layout is not torch.strided:
        return "constant", shape, dtype, tensor.device.type
    with torch.inference_mode(False), torch.no_grad():
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return "constant", shape, dtype, hashlib.sha256(data).hexdigest()


def _view(image: Tensor, tensor: Tensor) -> Tensor:
    """Return a view of `image` with the dtype, offset, shape and strides of a tensor."""
    entries = torch.empty(0, dtype=tensor.dtype)
    return entries.set_(image.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _run(func: Any, args: tuple[Any, ...], kwargs: Any, value: Callable[[Tensor], Any]) -> Any:
    """Run an operator on the CPU on the values of its tensors and return its result; None if it fails."""
    try:
        with no_dispatch(), torch.no_grad():
            given, named = (_on_the_cpu(replaced(tree, Tensor, value)) for tree in (args, kwargs))
            return func(*given, **named)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # the call itself is then compared, instead of its result
        return None


def _on_the_cpu(tree: Any) -> Any:
    """Return the arguments with the CPU as device: constants are compared by value, whatever their device."""
    return replaced(tree, torch.device, lambda device: device if device.type == "meta" else torch.device("cpu"))
