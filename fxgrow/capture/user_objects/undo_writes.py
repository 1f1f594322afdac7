"""Writes that code of the user's makes for real while it is traced or recorded: into parameters that it reaches by
`self.parameters()`, say, or into tensors of its own outside the model. Afterwards they are what they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from ..containers import found
from ..schemas import spec_of, storage_of


class Kept:
    """What tensors held before somebody wrote into them."""

    def __init__(self) -> None:
        self._saved: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, func: Any, args: tuple[object, ...], kwargs: dict[str, object], made: set[int]) -> None:
        """Keep what an operator is about to write over, but not in memory that was `made` meanwhile."""
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
        """Undo the writes."""
        if not self._saved:
            return
        with no_dispatch(), torch.no_grad():
            for place, old in self._saved.values():
                place.copy_(old)
        self._saved.clear()


class WritesUndone(TorchDispatchMode):
    """While it is entered, tensors that were there before may be written to; when it is left, they get their entries
    back. It sees the operators of its own thread alone."""

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
        """Run an operator, and before it writes, keep what is there."""
        kwargs = kwargs or {}
        self._kept.keep(func, args, kwargs, self._made)
        out = func(*args, **kwargs)
        if not spec_of(func).writes:
            given = {storage_of(t) for t in found((args, kwargs), Tensor) if is_real(t)}
            new = [t for t in found(out, Tensor) if is_real(t) and storage_of(t) not in given]
            self._made.update(map(storage_of, new))
            self._alive += new  # or a storage of another tensor might get its identity
        return out

    def __exit__(self, *args: object) -> None:
        """Undo the writes."""
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._kept.restore()


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor has memory of its own, as stand-ins have not."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter)
    return plain and tensor.layout is torch.strided and not tensor.is_meta
