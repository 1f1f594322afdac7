"""Positions at which a batch norm would raise an error in training mode, because each channel has a single value."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from torch import Tensor, fx

from ..analysis.analysis import Analysis
from ..capture.containers import leaves
from ..capture.program.program import Program, Value
from ..capture.traced_model.other_modes import in_mode


class _Known(dict[str, tuple[int, ...]]):
    """Cache of `one_value`, by node name."""


def one_value(gm: fx.GraphModule, analysis: Analysis, node: str) -> tuple[int, ...]:
    """Return the shape of a node's value for inputs with which each channel has a single value in training mode.

    A batch norm cannot compute statistics of one value and raises an error. Channels have a single value after global
    pooling if the batch has one sample, after other layers if the images are small as well, and in a table of
    parameters for every batch.

    Args:
        gm: the model.
        analysis: its analysis.
        node: the name of a node that returns one tensor.

    Returns:
        The shape, or () if no such inputs were found or the model does not accept them in training mode.
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
    for program in smaller(training, analysis):
        shape = _shape(program, node)
        if len(shape) > 1 and prod(shape) == shape[1]:
            return shape
    return ()


def _is_normed(training: fx.GraphModule, analysis: Analysis, value: Value) -> bool:
    """Return whether the model already has a batch norm over equally many values per channel, which fails for the same
    inputs."""
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


def smaller(training: fx.GraphModule, analysis: Analysis) -> Iterator[Program]:
    """Yield programs of the model in training mode for small inputs: one sample, then as many as in the example,
    with the other sizes halved until all are 1; finally the second inputs. Requires that `analysis.second` has been
    called."""
    pairs = analysis.following()
    first, other = ([x for x in leaves(some) if isinstance(x, Tensor) and x.dim()] for some in _inputs(analysis))
    batch = (first[0].shape[0], other[0].shape[0]) if first and other else None
    largest = max((n for n, m in pairs if (n, m) != batch), default=1)
    for one in (True, False):
        for halved in range(largest.bit_length()):
            sizes = {pair: (1 if one else pair[0]) if pair == batch else max(pair[0] >> halved, 1) for pair in pairs}
            program = analysis.at(training, sizes)
            if program is not None:
                yield program
    second = analysis.at(training, {pair: pair[1] for pair in pairs})
    if second is not None:
        yield second


def _inputs(analysis: Analysis) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return analysis.inputs, analysis.second_inputs


def _shape(program: Program, node: str) -> tuple[int, ...]:
    found = program.results.get(node)
    return found.shape if isinstance(found, Value) else ()
