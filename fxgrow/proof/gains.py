"""Gains: parameters that only scale a value, so that they can be divided by the number of copies."""

from __future__ import annotations

from ..capture.program.program import Op, Origin, Program, Value

_MULTIPLES = ("mul", "multiply", "div", "divide", "neg", "clone", "view", "reshape", "flatten", "unflatten")
"""Operators whose result is a multiple of their operand, if the other arguments are numbers."""


def gain_of(program: Program, value: Value) -> Value | None:
    """Return the parameter of which a value is a multiple; None if there is none, or if it has another use."""
    makers = program.makers()
    while value.origin is not Origin.PARAMETER:
        made = makers.get(value.index)
        if made is None or not _multiple(made) or _times_read(program, value) != 1:
            return None
        value = next(made.inputs())
    return value if _times_read(program, value) == 1 and value.index not in program.buffers else None


def _multiple(op: Op) -> bool:
    alone = len(list(op.inputs())) == 1 and op.args.get("rounding_mode") is None
    return alone and not op.mutates and op.name.removeprefix("aten::") in _MULTIPLES


def _times_read(program: Program, value: Value) -> int:
    returned = sum(value is out for out in program.outputs)
    return returned + sum(value is other for op in program.ops for other in op.inputs())
