"""Information from operator schemas, and the identity of a tensor's storage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload


@dataclass(frozen=True, slots=True)
class Spec:
    """The schema of an operator overload: name, arguments, in-place writes, and whether it draws random numbers."""

    name: str
    overload: str
    arguments: tuple[tuple[str, Any], ...]
    writes: tuple[str, ...]
    seeded: bool
    moves: bool
    """Whether it changes the shape of its operand in place, not its entries (`t_`, `unsqueeze_`)."""


@cache
def spec_of(func: OpOverload) -> Spec:
    """Return the schema of an overload (cached)."""
    schema = func._schema
    writes = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    name = schema.name
    if writes and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    arguments = tuple((a.name, a.default_value if a.has_default_value() else None) for a in schema.arguments)
    seeded = torch.Tag.nondeterministic_seeded in func.tags
    moves = torch.Tag.inplace_view in func.tags
    return Spec(name, schema.overload_name, arguments, writes, seeded, moves)


def storage_of(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage, which is equal for a tensor and its views."""
    return int(tensor.untyped_storage()._cdata)
