"""What the units of a layer are called in messages: channels where they are; of tokens or positions just units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Origin, Value
from ..rules.base import normal
from .targets import Target

_TURNS = """transpose permute movedim moveaxis swapaxes swapdims numpy_T mT t"""
_TURNING = frozenset(f"aten::{name}" for name in _TURNS.split())
"""Operators behind which the last axis may hold what another one held before."""
_READ = {"linear": "input", "scaled_dot_product_attention": "value", "matmul": "other", "bmm": "mat2", "mm": "mat2"}
"""The operand whose last axis says what that of the result holds, where it is not the first."""


def of_units(dims: DimsSolver, target: Target, text: str) -> str:
    """A sentence about "its channels", of a layer whose new units are perhaps no channels."""
    return text.replace("channels", word(dims, [target.node])).replace(
        "one channel", f"one {word(dims, [target.node])[:-1]}"
    )


def word(dims: DimsSolver, nodes: Iterable[str]) -> str:
    """What the units of some layers are called together."""
    return "channels" if all(_channels(dims, node) for node in nodes) else "units"


def _channels(dims: DimsSolver, node: str) -> bool:
    """Whether a layer makes channels, as far as its operator says: a convolution, or a linear layer whose input has
    channels last. A table of positions, or a matrix that mixes tokens, makes others."""
    ops = [op for op in dims.program.node_ops.get(node, ()) if op.args.get("weight") is not None]
    if any(op.name.startswith("aten::conv") or op.name == "aten::embedding" for op in ops):
        return True
    read = [op.args.get("input") for op in ops if op.name == "aten::linear"]
    makers = dims.program.makers()
    return bool(read) and not any(isinstance(x, Value) and _turned(x, makers) for x in read)


def _turned(value: Value, makers: Mapping[int, Op]) -> bool:
    """Whether the last axis of a value holds tokens or positions: what it is computed from has channels last, but for
    images, and an odd number of transpositions has moved that axis."""
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
    """The operand that the last axis of a result comes from; None if another one has become the last."""
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
    """Whether an operator puts another axis in the place of the last one."""
    if op.name not in _TURNING:
        return False
    rank = len(op.outputs[0].shape)
    numbers = [arg for name, arg in op.args.items() if name != "self"]
    if op.name == "aten::permute":
        return normal(numbers[0][-1], rank) != rank - 1
    places = [normal(n, rank) for arg in numbers for n in (arg if isinstance(arg, list | tuple) else [arg])]
    return rank > 1 and (not places or (rank - 1 in places and len(set(places)) > 1))
