"""Shape functions for operators whose results torch is slow to infer on fake tensors: batch norm and recurrent layers.

Each checks the shapes of its operands as the operator does, so that a growth with inconsistent shapes is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _batch_norm(x: Tensor, *rest: Any) -> Tensor:
    """Return the result of batch norm by shape. Its decomposition would take half the time of analysing a CNN."""
    channels = x.shape[1] if x.dim() > 1 else 0
    for vector in rest[:4]:
        if isinstance(vector, Tensor) and tuple(vector.shape) != (channels,):
            raise RuntimeError(f"batch_norm of {channels} channels with a vector of {vector.numel()} elements")
    return torch.empty_like(x)


def _recurrent(name: str, gates: int) -> Callable[..., Any]:
    """Return the shape function of a recurrent layer, which torch unrolls over time steps on fake tensors."""

    def shape(
        x: Tensor,
        hx: Tensor | Sequence[Tensor],
        params: Sequence[Tensor],
        biases: bool,
        count: int,
        dropout: float,
        train: bool,
        both: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        states = [hx] if isinstance(hx, Tensor) else list(hx)
        rows, hidden, memory = (1 + both) * count, states[0].shape[-1], states[-1].shape[-1]
        time, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
        recurrent: list[tuple[int, ...]] = [(gates * memory, hidden)]
        recurrent += [(gates * memory,)] * (2 * biases) + [(hidden, memory)] * (hidden != memory)
        want: list[tuple[int, ...]] = []
        for layer in range(count):
            inner = x.shape[2] if layer == 0 else hidden * (1 + both)
            want += [(gates * memory, inner), *recurrent] * (1 + both)
        have = [tuple(p.shape) for p in params]
        if have != want or any(tuple(s.shape[:2]) != (rows, batch) for s in states) or not time:
            raise RuntimeError(f"{name} of {x.shape[2]} features and {memory} hidden units with weights {have}")
        out = x.new_empty((time, batch, hidden * (1 + both)))
        return (out.transpose(0, 1) if batch_first else out, *(torch.empty_like(s) for s in states))

    return shape


SHAPES: dict[Any, Callable[..., Any]] = {
    aten.batch_norm.default: _batch_norm,
    aten.rnn_tanh.input: _recurrent("rnn_tanh", 1),
    aten.rnn_relu.input: _recurrent("rnn_relu", 1),
    aten.gru.input: _recurrent("gru", 3),
    aten.lstm.input: _recurrent("lstm", 4),
}
