"""Which whole numbers a model may be given: those that the tables know in which it looks them up."""

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
"""Operators whose first argument is a table and whose second one are numbers of its rows."""


class _Watch(TorchDispatchMode):
    """Notes how many rows the tables have in which inputs, or views of them, are looked up."""

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
    """For each input that is looked up in a table how many rows the smallest such table has; found by one run.

    Inputs are numbered as in `Call.leaves`: where none is a container, as they are given.

    Args:
        model: stays as it is.
        examples: what it takes; zeros stand for those that hold no numbers. If it cannot run, nothing is found.
        kwargs: what it takes by name.
        training: the mode in which it runs.
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
    except Exception:  # whatever a model raises is told where the models are compared
        return {}
    return watch.rows


def _real(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    known = type(x) is Tensor and not x.is_meta
    return x if known else torch.zeros(tuple(x.shape), dtype=x.dtype)  # `place` gives each a storage of its own
