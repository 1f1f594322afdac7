"""R2R by hand: twins behind the old units, signs as told, and what that does to the outputs. No fxgrow in here."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

NEW = 4
"""New units: two pairs, left and right side by side."""
ROWS, COLUMNS = (0, 1), (1, -1)
"""(axis, sign of the right twin): equal halves where units are born, opposite ones where they are read."""
DEAD_ROWS, DEAD_COLUMNS = (0, 0), (1, 0)
"""Nothing but zeros."""


BROKEN = 1e-3
"""A relative difference that no rounding makes."""
SAME = 1e-12
"""One that rounding makes in float64, with dozens of terms in a sum."""


@dataclass(frozen=True)
class Surgery:
    """Which tensors grow along which axis with which sign, and which attributes change."""

    tensors: Mapping[str, tuple[int, int]]
    attributes: Mapping[str, object] = field(default_factory=dict)


def written(*modules: str, bias: bool = True) -> dict[str, tuple[int, int]]:
    """Modules whose every row (and bias) gets twins: writers, and norms behind them."""
    return {f"{m}.{name}": ROWS for m in modules for name in ("weight", "bias")[: 1 + bias]}


def read(*modules: str) -> dict[str, tuple[int, int]]:
    """Modules whose weights get opposite columns."""
    return {f"{m}.weight": COLUMNS for m in modules}


def grown(model: nn.Module, surgery: Surgery) -> nn.Module:
    """A grown copy."""
    model = copy.deepcopy(model)
    for name, (axis, sign) in surgery.tensors.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        old = getattr(module, leaf).detach()
        shape = list(old.shape)
        shape[axis] = NEW // 2
        left = torch.randn(shape, generator=torch.Generator().manual_seed(axis), dtype=old.dtype) * abs(sign)
        twins = torch.stack([left, sign * left], dim=axis + 1).flatten(axis, axis + 1)
        setattr(module, leaf, nn.Parameter(torch.cat([old, twins], axis)))
    for name, value in surgery.attributes.items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, value)
    return model


def effect(before: nn.Module, after: nn.Module, inputs: Sequence[Tensor]) -> float | str:
    """The largest difference relative to the largest output; or in words, another shape or an error."""
    with torch.no_grad():
        wanted = _outputs(before(*inputs))
        try:
            found = _outputs(after(*inputs))
        except (RuntimeError, AssertionError) as error:
            return f"error: {error}"
    shapes = [(tuple(a.shape), tuple(b.shape)) for a, b in zip(wanted, found, strict=True) if a.shape != b.shape]
    if shapes:
        return f"interface: {shapes[0][0]} became {shapes[0][1]}"
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, found, strict=True))


def _outputs(result: Any) -> list[Tensor]:
    return [y.double() for y in (result if isinstance(result, tuple) else (result,))]
