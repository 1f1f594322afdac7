"""Raises the precision of a run to float64, including casts to narrower dtypes inside the model.

Rounding inside the model would otherwise hide whether two models compute the same function of real numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NARROW = (torch.float32, torch.float16, torch.bfloat16)
NARROW_COMPLEX = (torch.complex64, torch.complex32)
BITS = ("aten::view.dtype", "aten::lift", "aten::lift_fresh")
"""Operators that reinterpret the bits of a tensor, or only pass it on: their tensors and dtypes are not changed."""
NEEDS_FLOAT32 = ("aten::quantize_per_tensor", "aten::quantize_per_channel", "aten::quantize_per_tensor_dynamic")
DRAWS = ("aten::rand", "aten::randn")
"""Factories of random numbers: they would draw other numbers in float64, so they run unchanged and the result is
cast."""
BY_VALUE = ("aten::arange", "aten::full", "aten::scalar_tensor", "aten::range")
"""Factories that return integers if their arguments are integers."""
EPSILON = "aten::_fused_rms_norm"
"""The fused RMS norm. Its fourth argument is an epsilon, or None for the default of the dtype."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the double-precision dtype of the same kind; complex dtypes stay complex, integers stay as they are."""
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype


def like(dtype: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """Return the dtype of the same kind (real, complex, integer) with the precision of a floating-point dtype."""
    if dtype.is_complex:
        return torch.complex128 if wanted is torch.float64 else torch.complex64
    return wanted if dtype.is_floating_point else dtype


@lru_cache(maxsize=4096)
def _traits(func: Any) -> tuple[str, bool, bool]:
    """Return an operator's name, whether its tensors must be passed unchanged, and whether it is a factory."""
    schema = getattr(func, "_schema", None)
    if schema is None:  # a higher-order operator
        return "", True, False
    passed = schema.is_mutable or any(r.alias_info is not None for r in schema.returns)
    makes = not any("Tensor" in str(a.type) for a in schema.arguments) and any(
        a.name == "dtype" and a.default_value is None for a in schema.arguments
    )
    return schema.name, passed, makes


class _Raise(TorchDispatchMode):
    """Runs every operator in float64, whatever dtype the calling code names."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.epsilon = epsilon

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, passed, makes = _traits(func)
        named = dict(kwargs or {})
        if not name or f"{name}.{getattr(func, '_overloadname', '')}" in BITS or name in BITS:
            return func(*args, **named)
        if name in NEEDS_FLOAT32:
            return func(*(x.float() if isinstance(x, Tensor) and k == 0 else x for k, x in enumerate(args)), **named)
        if name in DRAWS:
            return _raised(func(*args, **named))
        change = _named if passed else _raised
        args, named = change(tuple(args)), {key: change(x) for key, x in named.items()}
        if makes and named.get("dtype") is None and (name not in BY_VALUE or any(isinstance(x, float) for x in args)):
            named["dtype"] = torch.float64
        if name == EPSILON and (args[3:4] or (named.get("eps"),))[0] is None:
            args, named = (*args[:3],), {**named, "eps": self.epsilon}
        return func(*args, **named)


def _named(x: Any) -> Any:
    """Return an argument with its dtypes raised."""
    if isinstance(x, torch.dtype):
        return wide(x) if x in NARROW or x in NARROW_COMPLEX else x
    return type(x)(map(_named, x)) if type(x) in (list, tuple) else x


def _raised(x: Any) -> Any:
    """Return an argument with its dtypes and tensors raised."""
    if isinstance(x, Tensor):
        narrow = x.dtype in NARROW or x.dtype in NARROW_COMPLEX
        return x.to(wide(x.dtype)) if narrow else x
    if type(x) in (list, tuple):
        return type(x)(map(_raised, x))
    return _named(x)


@contextmanager
def raised(epsilon: float) -> Iterator[None]:
    """Run with all casts, factories and constants of narrower dtypes raised to float64.

    Args:
        epsilon: the epsilon for norms that would use the default of the dtype.
    """
    with _Raise(epsilon):
        yield
