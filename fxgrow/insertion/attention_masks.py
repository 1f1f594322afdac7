"""Masks: whether what is added to the logits of attention hides tokens, or is a bias that the model learns."""

from __future__ import annotations

from collections.abc import Iterator

from ..capture.program.program import Op, Origin, Program, Value

MASKING = frozenset({"aten::masked_fill", "aten::tril", "aten::triu"})
"""Operators that hide entries."""
_CHOICES = """where masked_fill masked_scatter index_put index_fill index_copy scatter scatter_add fill
    tril triu"""
_CHOOSING = frozenset(f"aten::{name}" for name in _CHOICES.split())
_PIECES = frozenset(f"aten::{name}" for name in ("cat", "stack", "slice_scatter", "select_scatter"))
"""Operators that put tensors beside each other."""
_ZEROS = frozenset(f"aten::{name}" for name in ("zeros", "zeros_like", "new_zeros"))
_PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})
_SUMS = frozenset({"aten::add", "aten::sub"})
_MOVES = """alias clone contiguous detach expand expand_as flatten movedim narrow pad permute repeat reshape select
    slice squeeze to _to_copy transpose unflatten unsqueeze view
    constant_pad_nd"""
_MOVING = frozenset(f"aten::{name}" for name in _MOVES.split())
"""Operators whose results hold entries of their operand, or zeros."""


def hides(program: Program, mask: Value) -> bool:
    """Whether an attention mask may hide tokens: if it holds flags, or if some of the terms that it is the sum of is no
    function of parameters that learn.

    Positions' biases are looked up in a table, or computed from one, and a block without them attends as freely.
    """
    makers = {out.index: op for op in program.ops for out in op.outputs}
    return any(not _learned(program, term, makers) for term in _terms(mask, makers))


def _terms(value: Value, makers: dict[int, Op]) -> Iterator[Value]:
    """What a value is the sum of, moves between axes aside."""
    op = makers.get(value.index)
    if op is not None and (op.name in _SUMS or op.name in _PIECES or (op.name in _MOVING and not _fills(op))):
        for operand in op.inputs():
            yield from _terms(operand, makers)
    else:
        yield value


def _fills(op: Op) -> bool:
    """Whether an operator pads with another number than zero."""
    return op.name in _PADS and op.args.get("mode", "constant") == "constant" and op.args["value"] not in (None, 0)


def _learned(program: Program, value: Value, makers: dict[int, Op]) -> bool:
    """Whether a value is computed from parameters that learn, and no entry is chosen or put beside them, nor does a
    flag or a number among the inputs say what it is. Zeros hide nothing."""
    if not value.dtype.is_floating_point:
        return False
    if value.index in makers and makers[value.index].name in _ZEROS:
        return True
    seen: set[int] = set()
    ahead, learned = [value], False
    for v in ahead:
        if v.index in seen:
            continue
        seen.add(v.index)
        if v.origin is Origin.INPUT and not v.dtype.is_floating_point:
            return False
        learned = learned or (v.origin is Origin.PARAMETER and v.index not in program.buffers)
        op = makers.get(v.index)
        if op is not None and (op.name in _CHOOSING or _fills(op)):
            return False
        if op is not None and op.name in _PIECES and not all(_learned(program, t, makers) for t in _terms(v, makers)):
            return False
        ahead += op.inputs() if op is not None else ()
    return learned
