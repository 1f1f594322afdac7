"""Parses example inputs written as text: `1x3x224x224`, `2x16:int64:1000`, or `module:function`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..capture.inputs.call import Call
from ..errors import FxgrowError, Kind, usage
from .factory import call

LARGEST = 2**28
"""Largest number of entries of an example input: a gigabyte in float32, more than any model here uses."""
_SHAPE = re.compile(r"(\d{1,12}(?:x\d{1,12})*)(?::([a-z]+\d*))?(?::(\d{1,12}))?")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
SYNTAX = "1x3x224x224, 2x16:int64:1000 (integers below 1000), or module:function"


def parse_inputs(texts: Sequence[str], folder: str | Path | None = None) -> tuple[Any, ...] | None:
    """Parse example inputs, one for each string; None if there are none, so that they are inferred.

    Args:
        texts: shapes with a dtype (float32 by default) and, for integers, an exclusive upper limit (2 by default); or
            one function without arguments that returns a tensor or a tuple of values.
        folder: the folder that is searched for modules first.

    Raises:
        UsageError: a string is invalid.
    """
    if not texts:
        return None
    if len(texts) == 1 and _FUNCTION.fullmatch(texts[0]):
        made = call(texts[0], folder=folder)
        if isinstance(made, Tensor):
            return (made,)
        if isinstance(made, list | tuple) and made:
            return tuple(made)
        raise usage(
            Kind.BAD_INPUTS,
            f"{texts[0]} returns {type(made).__name__}",
            hint="return a tensor, or a tuple with one value for each input",
        )
    return tuple(example(text) for text in texts)


def example(text: str) -> Tensor:
    """Make one tensor from a shape with an optional dtype and, for integers, an exclusive upper limit.

    Raises:
        UsageError: the string is invalid, or the tensor would be too large.
    """
    found = _SHAPE.fullmatch(text)
    if found is None or (found[2] is not None and found[2] not in DTYPES):
        known = f"{SYNTAX}; dtypes are {', '.join(DTYPES)}"
        raise usage(Kind.BAD_INPUTS, f"{text!r} is not an input", hint=known)
    shape = tuple(int(size) for size in found[1].split("x"))
    if not prod(shape) or prod(shape) > LARGEST:
        raise usage(Kind.BAD_INPUTS, f"an input of shape {found[1]} has {prod(shape):,} entries", hint=SYNTAX)
    dtype = DTYPES[found[2] or "float32"]
    if dtype.is_floating_point or dtype is torch.bool:
        if found[3] is not None:
            raise usage(Kind.BAD_INPUTS, f"{text!r}: only integers have an upper limit", hint=SYNTAX)
        return torch.zeros(shape, dtype=dtype)
    high = _high(text, found[3], dtype)
    made = torch.zeros(shape, dtype=dtype)
    made.view(-1)[0] = high - 1  # integer probes are drawn up to the largest entry
    return made


def _high(text: str, given: str | None, dtype: torch.dtype) -> int:
    high = 2 if given is None else int(given)
    if not 1 <= high <= torch.iinfo(dtype).max:
        raise _unfit(text, dtype)
    return high


def _unfit(text: str, dtype: torch.dtype) -> FxgrowError:
    name = str(dtype).removeprefix("torch.")
    return usage(Kind.BAD_INPUTS, f"{text!r}: the upper limit is not valid for {name}", hint=SYNTAX)


def written(values: Sequence[Any] | Call) -> tuple[str, ...] | None:
    """Format example inputs as strings for `parse_inputs`; None if some cannot be written that way."""
    if isinstance(values, Call):
        if values.kwargs:
            return None
        values = values.args
    texts = []
    for x in values:
        name = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else ""
        if not isinstance(x, Tensor) or name not in DTYPES or not x.dim() or not 0 < x.numel() <= LARGEST:
            return None
        text = f"{'x'.join(map(str, x.shape))}:{name}"
        whole = not x.is_floating_point() and x.dtype is not torch.bool
        known = whole and type(x) is Tensor and not x.is_meta
        texts.append(f"{text}:{max(int(x.max()) + 1, 1)}" if known else text)
    return tuple(texts)
