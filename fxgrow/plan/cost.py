"""What a model costs: parameters, bytes, FLOPs, before and after a growth, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from torch import Tensor, fx

from ..capture.program import Op, Program, Value
from .plan import Cost

Shape = Callable[[Value], tuple[int, ...]]


def flops(program: Program, shape: Shape) -> int:
    """Floating-point operations of all contractions, a multiply and an add for each product."""
    return sum(_flops(op, shape) for op in program.ops)


def _flops(op: Op, shape: Shape) -> int:
    name = op.name.removeprefix("aten::")
    if name.startswith("conv_transpose"):
        weight = shape(op.args["weight"])
        return 2 * prod(shape(op.args["input"])) * prod(weight[1:])
    if name.startswith("conv"):
        return 2 * prod(shape(op.outputs[0])) * prod(shape(op.args["weight"])[1:])
    if name == "linear":
        return 2 * prod(shape(op.outputs[0])) * shape(op.args["weight"])[-1]
    if name in ("matmul", "bmm", "mm", "mv"):
        return 2 * prod(shape(op.outputs[0])) * shape(op.args["self"])[-1]
    if name in ("addmm", "baddbmm"):
        left = op.args["mat1"] if name == "addmm" else op.args["batch1"]
        return 2 * prod(shape(op.outputs[0])) * shape(left)[-1]
    if name == "einsum":
        sizes: dict[str, int] = {}
        for value, row in zip(op.args["tensors"], op.args["equation"].split("->")[0].split(","), strict=True):
            sizes.update(zip(row.strip(), shape(value), strict=False))
        return 2 * prod(sizes.values())
    if name == "scaled_dot_product_attention":
        q, k = shape(op.args["query"]), shape(op.args["key"])
        return 2 * prod(q) * k[-2] + 2 * prod(shape(op.outputs[0])) * k[-2]
    return 0


def measure(gm: fx.GraphModule, program: Program, new: dict[str, tuple[int, ...]], shape: Shape) -> Cost:
    """The cost of a model whose tensors `new` names have other shapes; `shape` tells those of the program."""
    parameters = _count(gm.named_parameters(), new)
    everything = [*gm.named_parameters(), *gm.named_buffers()]
    size = sum(prod(new.get(name, tuple(t.shape))) * t.element_size() for name, t in everything)
    return Cost(parameters, size, flops(program, shape))


def _count(tensors: Iterable[tuple[str, Tensor]], new: dict[str, tuple[int, ...]]) -> int:
    return sum(prod(new.get(name, tuple(t.shape))) for name, t in tensors)
