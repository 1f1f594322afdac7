"""Compute the parameters, bytes and FLOPs of a model before and after a growth, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.program.program import Op, Value
from ..capture.program.trees import attribute
from ..plans.plan import Cost, SkipEdit, TensorEdit
from .new_sizes import NewSizes

Shape = Callable[[Value], tuple[int, ...]]


def flops(ops: Iterable[Op], shape: Shape) -> int:
    """Return the floating-point operations of all contractions; a multiply-add counts as two."""
    return sum(_flops(op, shape) for op in ops)


def _flops(op: Op, shape: Shape) -> int:
    """Return the floating-point operations of one operator; zero if it is not a contraction."""
    name = op.name.removeprefix("aten::")
    if name.startswith("conv_transpose"):
        weight = shape(op.args["weight"])
        return 2 * prod(shape(op.args["input"])) * prod(weight[1:])
    if name.startswith("conv"):
        return 2 * prod(shape(op.outputs[0])) * prod(shape(op.args["weight"])[1:])
    if name == "linear":
        return 2 * prod(shape(op.outputs[0])) * shape(op.args["weight"])[-1]
    if name == "bilinear":
        return 2 * prod(shape(op.args["input1"])[:-1]) * prod(shape(op.args["weight"]))
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
    if name.removesuffix("_cell") in ("rnn_tanh", "rnn_relu", "gru", "lstm"):  # each sample, step and weight
        weights = op.args["params"] if "params" in op.args else [op.args["w_ih"], op.args["w_hh"]]
        return 2 * prod(shape(op.args["input"])[:-1]) * sum(prod(shape(w)) for w in weights if len(w.shape) == 2)
    if name == "scaled_dot_product_attention":
        q, k = shape(op.args["query"]), shape(op.args["key"])
        return 2 * prod(q) * k[-2] + 2 * prod(shape(op.outputs[0])) * k[-2]
    return 0


def costs(
    analysis: Analysis,
    gm: fx.GraphModule,
    edits: Sequence[TensorEdit],
    new: NewSizes,
    skips: Mapping[SkipEdit, tuple[int, ...]],
) -> tuple[Cost, Cost]:
    """Return the cost of a model before and after a growth; `skips` maps skip edits to their adapted shapes."""
    parameters, size = analysis.size
    before = Cost(parameters, size, flops(analysis.program.ops, lambda value: value.shape))
    for edit in edits:
        tensor = attribute(gm, edit.names[0])
        more = prod(edit.new) - prod(edit.old)
        parameters += more if isinstance(tensor, nn.Parameter) else 0
        size += more * tensor.element_size()
    touched = new.dims.touched(new.new)
    added = flops(touched, new.shape) - flops(touched, lambda value: value.shape)
    for skip, shape in skips.items():
        if skip.kind != "pad":
            parameters += skip.read * skip.width
            size += skip.read * skip.width * next(gm.parameters()).element_size()
            added += 2 * prod(shape) * skip.read
    return before, Cost(parameters, size, before.flops + added)
