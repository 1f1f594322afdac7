"""Runs models without dropout, for growths that preserve the distribution of random outputs, but not single draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DROPS: frozenset[Callable[..., Any]] = frozenset(
    [
        *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
        *(torch.dropout, torch.dropout_, torch.alpha_dropout, torch.alpha_dropout_),
        *(torch.feature_dropout, torch.feature_dropout_),
        *(torch.feature_alpha_dropout, torch.feature_alpha_dropout_),
    ]
)
_SLOPES: frozenset[Callable[..., Any]] = frozenset([F.rrelu, torch.rrelu, torch.rrelu_])


class Undrawn(TorchFunctionMode):
    """A mode in which dropout is the identity, rrelu uses its mean slope, and attention drops no weights."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function without its random draws."""
        given = dict(kwargs or {})
        if func in _DROPS:
            x: Tensor = args[0] if args else given["input"]
            return x
        if func in _SLOPES:
            names = ("input", "lower", "upper")
            bounds = {**dict(zip(names, args, strict=False)), **{k: v for k, v in given.items() if k in names}}
            slope = (bounds.get("lower", 1 / 8) + bounds.get("upper", 1 / 3)) / 2
            return F.leaky_relu(bounds["input"], slope)
        if func is F.scaled_dot_product_attention:
            rate = 4  # the position of dropout_p
            args = [*args[:rate], 0.0, *args[rate + 1 :]] if len(args) > rate else args
            given.update({"dropout_p": 0.0} if "dropout_p" in given else {})
        return func(*args, **given)
