"""Boolean and integer parameters and buffers: masks may grow by copies of their entries, indices may not."""

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
"""Rules of operators that use every entry separately, or move it."""


def is_continuous(dtype: torch.dtype) -> bool:
    """Return whether a dtype is floating-point or complex, so that entries can be negated, divided or drawn."""
    return dtype.is_floating_point or dtype.is_complex


def flags(program: Program) -> frozenset[int]:
    """Return the indices of boolean and integer parameters and buffers, of which new entries can only be zeros or
    copies of old ones."""
    return frozenset(v.index for v in program.values if v.origin is Origin.PARAMETER and not is_continuous(v.dtype))


def masks(program: Program) -> frozenset[int]:
    """Return those of `flags` that are used as masks: they are multiplied, added, compared, or select entries.

    A tensor that is used as an index anywhere, or is returned or written to, is not a mask.
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
    """Return whether an operator uses every entry of a tensor separately, as a mask."""
    rule = RULES.get(op.name)
    if isinstance(rule, writing.IndexPut):
        lone = [v for v in tensors(op.args["indices"]) if v is mask]
        return len(lone) == 1 and mask.dtype is torch.bool and op.args["values"].shape == ()
    return isinstance(rule, _BY_ENTRY) and not op.varies
