"""Trace calls of tensor factories as graph nodes, as in `out = torch.zeros(4, 8)`, where `out` is written to later."""

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
WITH_SIZES: tuple[Any, ...] = (
    *_FACTORIES,
    *(torch.empty_permuted, torch.empty_strided, torch.rand, torch.randint, torch.randn, torch.randperm),
    *(torch.normal, torch.range, torch.tril_indices, torch.triu_indices, torch.scalar_tensor, torch.as_tensor),
    *(torch.hann_window, torch.hamming_window, torch.blackman_window, torch.bartlett_window, torch.kaiser_window),
    *(torch.finfo, torch.iinfo, torch.promote_types, torch.result_type, torch.can_cast, torch.broadcast_shapes),
)
"""Functions that take only sizes, dtypes and devices. torch accepts only plain values there, so torch.fx must wrap the
functions to record the calls."""


class TracedFactories(TorchFunctionMode):
    """A function mode under which tensor factory calls become graph nodes; torch.fx alone would run them."""

    def __init__(self, tracer: fx.Tracer, values: Values | None) -> None:
        super().__init__()
        self.tracer, self.values = tracer, values

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Create a node for a factory call, unless node values are being computed; run any other function as usual."""
        if func in _FACTORIES and not (self.values is not None and self.values.busy):
            return self.tracer.create_proxy("call_function", func, args, dict(kwargs or {}))
        return func(*args, **(kwargs or {}))
