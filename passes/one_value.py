"""Where a batch norm would raise an error in training mode: where one value for each channel passes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch import Tensor, fx

from fxgrow.analysis import FURTHER, Analysis
from fxgrow.capture.containers import leaves
from fxgrow.capture.other_modes import in_mode
from fxgrow.capture.program import Program, Value


class _Known(dict[str, tuple[int, ...]]):
    """What `one_value` has found out, by node."""


def one_value(gm: fx.GraphModule, analysis: Analysis, node: str) -> tuple[int, ...]:
    """The shape with one value for each channel that passes behind a node for inputs that the model trains on.

    A batch norm has no statistics of one value and raises an error. One value passes behind global pooling for a batch
    of one sample, behind other layers for small images as well, and in a table of parameters whatever the batch is.

    Args:
        gm: the model.
        analysis: of the model.
        node: the name of a node that returns one tensor.

    Returns:
        () if no inputs were found for which one value passes, or if the model does not take those in training mode.
    """
    known = analysis.kept(_Known, _Known)
    if node not in known:
        known[node] = _one_value(gm, analysis, node)
    return known[node]


def _one_value(gm: fx.GraphModule, analysis: Analysis, node: str) -> tuple[int, ...]:
    value = analysis.program.results[node]
    if not isinstance(value, Value) or analysis.second(gm) is None:
        return ()
    training = in_mode(gm, training=True)
    if _is_normed(training, analysis, value):
        return ()
    for sizes in _smaller(analysis):
        program = analysis.further(gm, sizes)
        shape = _shape(program, node) if program is not None else ()
        if len(shape) > 1 and prod(shape) == shape[1] and analysis.takes(training, sizes):
            return shape
    return ()


def _is_normed(training: fx.GraphModule, analysis: Analysis, value: Value) -> bool:
    """Whether the model has a batch norm of as many values for each channel: it raises an error for the same inputs."""
    nodes = {node.name: node for node in training.graph.nodes}
    for op in analysis.program.ops:
        node = nodes[op.node]
        if op.name != "aten::batch_norm" or node.op != "call_module":
            continue
        if training.get_submodule(str(node.target)).training and _same_but_channels(analysis, op.args["input"], value):
            return True
    return False


def _same_but_channels(analysis: Analysis, one: Value, other: Value) -> bool:
    first, second = analysis.dims.resolved(one), analysis.dims.resolved(other)
    return (*first[:1], *first[2:]) == (*second[:1], *second[2:])


def _smaller(analysis: Analysis) -> Iterator[dict[tuple[int, int], int]]:
    """Sizes of the inputs: with one sample and with as many as the example has, and parts of the other sizes."""
    pairs = analysis.following()
    batch = next((x.shape[0] for x in leaves(analysis.inputs) if isinstance(x, Tensor) and x.dim()), 0)
    for one in (True, False):
        for over in (1, *(over for times, over in FURTHER if times == 1)):
            yield {(n, m): (1 if one else n) if n == batch else max(n // over, 1) for n, m in pairs}
    yield {pair: pair[1] for pair in pairs}


def _shape(program: Program, node: str) -> tuple[int, ...]:
    found = program.results.get(node)
    return found.shape if isinstance(found, Value) else ()
