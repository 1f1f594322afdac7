"""Decides whether random new entries of a tensor are drawn from a distribution or taken from old units."""

from __future__ import annotations

from ..analysis.flags import is_continuous
from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin, Value

_WEIGHTS = ("linear", "embedding", "matmul", "mm", "bmm", "addmm", "einsum", "bilinear")


def weights(dims: DimsSolver) -> set[int]:
    """Return the indices of weights and biases of linear, convolution and similar operators, whose new entries are
    drawn from a distribution whatever their shape is."""
    found: set[int] = set()
    for op in dims.program.ops:
        name = op.name.removeprefix("aten::")
        if name.startswith("conv") or name in _WEIGHTS:
            found.update(value.index for value in op.inputs())
    return found


def is_drawn(dims: DimsSolver, value: Value, among: set[int]) -> bool:
    """Return whether random new entries of a parameter or buffer are drawn from a distribution.

    Those of vectors that scale or shift channels, of buffers, and of boolean and integer tensors are taken from old
    units instead, from the same units for all tensors of a module.

    Args:
        dims: the axes.
        value: the parameter or buffer.
        among: the result of `weights`.
    """
    if value.index in dims.program.buffers or not is_continuous(value.dtype):
        return False
    return sum(n > 1 for n in value.shape) > 1 or value.index in among


def taken(dims: DimsSolver, value: Value) -> bool:
    """Return whether new entries of a value are those of old units, because it is computed only from tensors of one
    module whose new entries are, as in `torch.rsqrt(self.running_var + self.eps)`."""
    makers = dims.program.makers()
    sources: dict[int, Value] = {}
    todo, seen = [value], set[int]()
    while todo:
        one = todo.pop()
        if one.index in seen:
            continue
        seen.add(one.index)
        op: Op | None = makers.get(one.index)
        if op is not None:
            todo += op.inputs()
        elif one.origin is Origin.PARAMETER:
            sources[one.index] = one
        elif one.origin is Origin.INPUT:
            return False
    among = weights(dims)
    owners = {v.names[0].rpartition(".")[0] if v.names else "" for v in sources.values()}
    ranks = {len(v.shape) for v in sources.values()}
    alike = len(sources) == 1 or (len(owners) == len(ranks) == 1)
    return bool(sources) and alike and not any(is_drawn(dims, v, among) for v in sources.values())
