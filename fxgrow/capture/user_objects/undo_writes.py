"""Undo writes of user code into real tensors during tracing and recording, such as parameters that it accesses by
`self.parameters()`, or tensors outside the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from ..containers import found
from ..schemas import spec_of, storage_of


class Kept:
    """Copies of the storages of real tensors, made before writes into them."""

    def __init__(self) -> None:
        self._saved: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, func: Any, args: tuple[object, ...], kwargs: dict[str, object], made: set[int]) -> None:
        """Save the storages that an operator is about to write to, except those in `made` (allocated meanwhile)."""
        spec = spec_of(func)
        for k, (name, _) in enumerate(spec.arguments):
            if name not in spec.writes:
                continue
            for tensor in found(args[k] if k < len(args) else kwargs.get(name), Tensor):
                if is_real(tensor) and storage_of(tensor) not in made and storage_of(tensor) not in self._saved:
                    with no_dispatch(), torch.no_grad():
                        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device)
                        whole.set_(tensor.untyped_storage())
                        self._saved[storage_of(tensor)] = whole, whole.clone()

    def restore(self) -> None:
        """Write the saved contents back to their storages, and forget them."""
        if not self._saved:
            return
        with no_dispatch(), torch.no_grad():
            for place, old in self._saved.values():
                place.copy_(old)
        self._saved.clear()


class WritesUndone(TorchDispatchMode):
    """A dispatch mode that, on exit, undoes all writes into tensors that existed on entry.

    It sees only the operators of its own thread.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = Kept()
        self._made: set[int] = set()
        self._alive: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[Any, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run an operator, after saving the storages that it writes to."""
        kwargs = kwargs or {}
        self._kept.keep(func, args, kwargs, self._made)
        out = func(*args, **kwargs)
        if not spec_of(func).writes:
            given = {storage_of(t) for t in found((args, kwargs), Tensor) if is_real(t)}
            new = [t for t in found(out, Tensor) if is_real(t) and storage_of(t) not in given]
            self._made.update(map(storage_of, new))
            self._alive += new  # so that the id of the storage is not reused
        return out

    def __exit__(self, *args: object) -> None:
        """Exit the mode and undo the writes."""
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._kept.restore()


def is_real(tensor: Tensor) -> bool:
    """Return whether a tensor is a plain dense tensor with data: not fake, meta, sparse or of another subclass."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter)
    return plain and tensor.layout is torch.strided and not tensor.is_meta
