"""Finds which integers a model accepts: valid row indices of the embedding tables in which they are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..capture.inputs.call import Call
from .compare import forward, place, seeded, standing, twin
from .probes import whole

LOOKUPS = tuple(
    getattr(torch.ops.aten, name).default for name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only")
)
"""Operators whose first argument is a table and whose second argument holds row indices."""


class _Watch(TorchDispatchMode):
    """Records the number of rows of the tables in which the inputs, or views of them, are looked up."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.number = {x.untyped_storage().data_ptr(): k for k, x in enumerate(inputs) if isinstance(x, Tensor)}
        self.rows: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in LOOKUPS:
            number = self.number.get(args[1].untyped_storage().data_ptr())
            if number is not None:
                rows = args[0].shape[0]
                self.rows[number] = min(rows, self.rows.get(number, rows))
        return func(*args, **dict(kwargs or {}))


def rows_read(
    model: nn.Module, examples: Sequence[Any] | Call, kwargs: Mapping[str, Any] | None = None, *, training: bool = False
) -> dict[int, int]:
    """Returns, for each input that is looked up in a table, the number of rows of the smallest such table.

    Inputs are numbered as in `Call.leaves`. The result comes from one run of a copy; if the model cannot run, the
    result is empty.

    Args:
        model: the model; it stays unchanged.
        examples: the positional inputs; fake and meta tensors are replaced by zeros.
        kwargs: the keyword inputs.
        training: whether the model runs in training mode.
    """
    given = examples if isinstance(examples, Call) else Call(tuple(examples), dict(kwargs or {}))
    if not any(map(whole, given.leaves)):
        return {}
    device, dtype = standing(model)
    inputs = given.changed(lambda x: place(_real(x), device, dtype))
    watch = _Watch(inputs.leaves)
    try:
        with torch.no_grad(), seeded(0), watch:
            forward(twin(model, None, training=training), inputs)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # the comparison of the models reports it
        return {}
    return watch.rows


def _real(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    known = type(x) is Tensor and not x.is_meta
    return x if known else torch.zeros(tuple(x.shape), dtype=x.dtype)  # `place` gives each a storage of its own
