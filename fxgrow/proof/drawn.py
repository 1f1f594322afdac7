"""Which tensors get new entries that are drawn, and which take them from old units."""

from __future__ import annotations

from ..analysis.flags import is_continuous
from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin, Value

_WEIGHTS = ("linear", "embedding", "matmul", "mm", "bmm", "addmm", "einsum", "bilinear")


def weights(dims: DimsSolver) -> set[int]:
    """Indices of weights and their biases, whose new entries are drawn whatever their shape is."""
    found: set[int] = set()
    for op in dims.program.ops:
        name = op.name.removeprefix("aten::")
        if name.startswith("conv") or name in _WEIGHTS:
            found.update(value.index for value in op.inputs())
    return found


def is_drawn(dims: DimsSolver, value: Value, among: set[int]) -> bool:
    """Whether new entries of a parameter or buffer are drawn. Those of vectors that scale or shift channels, and of
    buffers and of flags and whole numbers, are taken from old units, from the same ones for all tensors of a module.

    Args:
        dims: the axes.
        value: the parameter or buffer.
        among: the result of `weights`.
    """
    if value.index in dims.program.buffers or not is_continuous(value.dtype):
        return False
    return sum(n > 1 for n in value.shape) > 1 or value.index in among


def taken(dims: DimsSolver, value: Value) -> bool:
    """Whether new entries of a value are those of old units, because it is computed from such tensors of one module
    alone, as in `torch.rsqrt(self.running_var + self.eps)`."""
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
