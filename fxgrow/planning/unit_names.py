"""Choose the word for the units of a layer in messages: "channels", or "units" for tokens, positions and others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin, Value
from ..rules.base import normal
from .targets import Target

_TURNS = """transpose permute movedim moveaxis swapaxes swapdims numpy_T mT t"""
_TURNING = frozenset(f"aten::{name}" for name in _TURNS.split())
"""Operators that may move another axis to the last position."""
_READ = {"linear": "input", "scaled_dot_product_attention": "value", "matmul": "other", "bmm": "mat2", "mm": "mat2"}
"""The operand whose last axis corresponds to the last axis of the result, by operator."""


def of_units(dims: DimsSolver, target: Target, text: str) -> str:
    """Return `text` with "channels" replaced by "units" if the units of the target are not channels."""
    return text.replace("channels", word(dims, [target.node])).replace(
        "one channel", f"one {word(dims, [target.node])[:-1]}"
    )


def word(dims: DimsSolver, nodes: Iterable[str]) -> str:
    """Return the word for the units of some layers: "channels" if all of them create channels, else "units"."""
    return "channels" if all(_channels(dims, node) for node in nodes) else "units"


def _channels(dims: DimsSolver, node: str) -> bool:
    """Return whether a layer creates channels, judging by its operators.

    A convolution, an embedding, and a linear layer whose input has channels last do; a table of positions or a matrix
    that mixes tokens does not.
    """
    ops = [op for op in dims.program.node_ops.get(node, ()) if op.args.get("weight") is not None]
    if any(op.name.startswith("aten::conv") or op.name == "aten::embedding" for op in ops):
        return True
    read = [op.args.get("input") for op in ops if op.name == "aten::linear"]
    makers = dims.program.makers()
    return bool(read) and not any(isinstance(x, Value) and _turned(x, makers) for x in read)


def _turned(value: Value, makers: Mapping[int, Op]) -> bool:
    """Return whether the last axis of a value holds tokens or positions instead of channels.

    Sources are assumed to have channels last, except images and results of convolutions; each transposition on the way
    that moves the last axis switches between the two cases.
    """
    times = 0
    while (op := makers.get(value.index)) is not None and value not in op.inputs():
        if op.name.startswith("aten::conv"):
            return times % 2 == 0
        times += _moves_last(op)
        before = _source(op)
        if before is None:
            return times % 2 == 1
        value = before
    image = value.origin is Origin.INPUT and len(value.shape) > 3
    return (times + image) % 2 == 1


def _source(op: Op) -> Value | None:
    """Return the operand that the last axis of a result comes from; None if it cannot be determined."""
    name = op.name.removeprefix("aten::")
    if name in _READ:
        found = op.args[_READ[name]]
        return found if isinstance(found, Value) else None
    rank, tables = len(op.outputs[0].shape), (Origin.PARAMETER, Origin.CONSTANT)
    for value in op.inputs():
        whole = rank == len(value.shape) or (rank > 2 and len(value.shape) > 2) or op.name in _TURNING
        if whole and value.origin not in tables:
            return value
    return None


def _moves_last(op: Op) -> bool:
    """Return whether an operator moves another axis to the last position."""
    if op.name not in _TURNING:
        return False
    rank = len(op.outputs[0].shape)
    numbers = [arg for name, arg in op.args.items() if name != "self"]
    if op.name == "aten::permute":
        return normal(numbers[0][-1], rank) != rank - 1
    places = [normal(n, rank) for arg in numbers for n in (arg if isinstance(arg, list | tuple) else [arg])]
    return rank > 1 and (not places or (rank - 1 in places and len(set(places)) > 1))
