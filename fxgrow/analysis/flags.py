"""Flags and whole numbers that a model holds: masks may grow by copies of their entries, indices may not."""

from __future__ import annotations

import torch

from ..capture.program.program import Op, Origin, Program, Value, tensors
from ..rules import RULES, arithmetic, pointwise, shape, slicing
from ..rules import scatter as writing
from ..rules import where as choice

_BY_ENTRY = (
    pointwise.Unary,
    arithmetic.Add,
    arithmetic.Multiply,
    arithmetic.Divide,
    choice.Choose,
    shape.View,
    shape.Permute,
    shape.Squeeze,
    shape.Expand,
    slicing.Slice,
    slicing.Select,
)
"""Rules of operators that take every entry by itself, or move it."""


def is_continuous(dtype: torch.dtype) -> bool:
    """Whether entries of a dtype can change their sign, be shared out, or be drawn."""
    return dtype.is_floating_point or dtype.is_complex


def flags(program: Program) -> frozenset[int]:
    """Indices of the parameters and buffers that hold flags or whole numbers, of which new entries can only be zero or
    equal to old ones."""
    return frozenset(v.index for v in program.values if v.origin is Origin.PARAMETER and not is_continuous(v.dtype))


def masks(program: Program) -> frozenset[int]:
    """Those among them that are read as masks are: multiplied by, added, compared, chosen by.

    What is an index anywhere, or is returned or written to, is none: its numbers say where something is.
    """
    readers: dict[int, list[Op]] = {}
    for op in program.ops:
        for value in op.inputs():
            readers.setdefault(value.index, []).append(op)
    returned = {v.index for v in program.outputs}
    return frozenset(i for i in flags(program) if _is_mask(program.values[i], readers, returned))


def _is_mask(value: Value, readers: dict[int, list[Op]], returned: set[int]) -> bool:
    ahead, seen = [value], set[int]()
    for v in ahead:
        if v.index in seen or is_continuous(v.dtype):
            continue
        seen.add(v.index)
        if v.index in returned:
            return False
        for op in readers.get(v.index, ()):
            if not _takes(op, v):
                return False
            ahead += op.outputs
    return bool(value.shape)


def _takes(op: Op, mask: Value) -> bool:
    """Whether an operator reads every entry by itself, as those of a mask."""
    rule = RULES.get(op.name)
    if isinstance(rule, writing.IndexPut):
        lone = [v for v in tensors(op.args["indices"]) if v is mask]
        return len(lone) == 1 and mask.dtype is torch.bool and op.args["values"].shape == ()
    return isinstance(rule, _BY_ENTRY) and not op.varies
