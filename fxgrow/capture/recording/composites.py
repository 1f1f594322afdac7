"""Composite operators, which are recorded as the operators they decompose into unless a rule handles them whole."""

from __future__ import annotations

from functools import cache

from torch import _C
from torch._ops import OpOverload

from ..schemas import spec_of

WHOLE: set[str] = set()
"""Names of operators that are not decomposed, such as `aten::linear`; `fxgrow.rules` adds those that have a rule."""
_NUMBERS = frozenset({"aten::item", "aten::is_nonzero", "aten::equal", "aten::numel", "aten::size", "aten::stride"})
"""Operators that return a number or read tensor values."""


def opens(func: OpOverload) -> bool:
    """Return whether a call of an operator is recorded as the operators it decomposes into."""
    return _is_composite(func) and spec_of(func).name not in WHOLE


@cache
def _is_composite(func: OpOverload) -> bool:
    spec = spec_of(func)
    if not spec.name.startswith("aten::") or spec.name in _NUMBERS or spec.seeded or spec.moves:
        return False
    returned = [str(value.type) for value in func._schema.returns]
    if not returned or any("Tensor" not in kind for kind in returned):
        return False
    return bool(_C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))
