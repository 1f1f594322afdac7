"""Calls that make tensors of numbers alone, as nodes of a graph: `out = torch.zeros(4, 8)`, which is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from .values import Values

_FACTORIES = frozenset(
    {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.logspace, torch.ones, torch.tensor}
    | {torch.zeros}
)


class TracedFactories(TorchFunctionMode):
    """While it is entered, a tracer makes nodes of such calls, which torch.fx would run instead."""

    def __init__(self, tracer: fx.Tracer, values: Values | None) -> None:
        super().__init__()
        self.tracer, self.values = tracer, values

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Of every function of torch."""
        if func in _FACTORIES and not (self.values is not None and self.values.busy):
            return self.tracer.create_proxy("call_function", func, args, dict(kwargs or {}))
        return func(*args, **(kwargs or {}))
