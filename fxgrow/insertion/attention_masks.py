"""Distinguish attention masks that hide tokens from biases that the model learns."""

from __future__ import annotations

from collections.abc import Iterator

from ..capture.program.program import Op, Origin, Program, Value

MASKING = frozenset({"aten::masked_fill", "aten::tril", "aten::triu"})
"""Operators that mask entries."""
_CHOICES = """where masked_fill masked_scatter index_put index_fill index_copy scatter scatter_add fill
    tril triu"""
_CHOOSING = frozenset(f"aten::{name}" for name in _CHOICES.split())
_PIECES = frozenset(f"aten::{name}" for name in ("cat", "stack", "slice_scatter", "select_scatter"))
"""Operators that combine tensors by concatenation or by writing one into another."""
_ZEROS = frozenset(f"aten::{name}" for name in ("zeros", "zeros_like", "new_zeros"))
_PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})
_SUMS = frozenset({"aten::add", "aten::sub"})
_MOVES = """alias clone contiguous detach expand expand_as flatten movedim narrow pad permute repeat reshape select
    slice squeeze to _to_copy transpose unflatten unsqueeze view
    constant_pad_nd"""
_MOVING = frozenset(f"aten::{name}" for name in _MOVES.split())
"""Operators whose results contain only entries of their operand, or zeros."""


def hides(program: Program, mask: Value) -> bool:
    """Return whether an attention mask may hide tokens: it is boolean, or one of its terms is not computed from
    trainable parameters.

    Position biases are looked up in a table or computed from one; a block without them can attend to the same tokens.
    """
    makers = {out.index: op for op in program.ops for out in op.outputs}
    return any(not _learned(program, term, makers) for term in _terms(mask, makers))


def _terms(value: Value, makers: dict[int, Op]) -> Iterator[Value]:
    """Yield the terms of a sum, looking through operators that only move entries."""
    op = makers.get(value.index)
    if op is not None and (op.name in _SUMS or op.name in _PIECES or (op.name in _MOVING and not _fills(op))):
        for operand in op.inputs():
            yield from _terms(operand, makers)
    else:
        yield value


def _fills(op: Op) -> bool:
    """Return whether an operator pads with a number other than zero."""
    return op.name in _PADS and op.args.get("mode", "constant") == "constant" and op.args["value"] not in (None, 0)


def _learned(program: Program, value: Value, makers: dict[int, Op]) -> bool:
    """Return whether a value is computed from trainable parameters without selecting or concatenating other entries and
    without boolean or integer inputs. Zeros count as learned, because they hide nothing."""
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
