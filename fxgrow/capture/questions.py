"""What user code asks of stand-ins while it is traced, which torch.fx does not notice: their class, and their hash.

`n in {16, 32}` and `table[n]` ask for a hash, `isinstance(n, int)` for a class. A size has no value while a model is
traced, so the one is refused and the other answered.
"""

from __future__ import annotations

import dis
import functools
import operator
import sys
from types import CodeType, FrameType

from torch import fx

_PROPERTIES = frozenset({"shape", "dtype", "device", "ndim", "layout", "itemsize"})
_SIZES = frozenset({"size", "dim", "numel", "nelement", "ndimension", "stride", "element_size", "get_device"})
_LOOKUPS = frozenset({"CONTAINS_OP", "BINARY_SUBSCR", "BINARY_OP"})
_METHODS = frozenset({"get", "pop", "setdefault", "index", "count", "__contains__", "__getitem__"})
_NUMBERS = frozenset({"dim", "numel", "nelement", "ndimension"})
_WHOLE = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)


def is_value(node: fx.Node) -> bool:
    """Whether a node stands for a size, a dtype or another value that is equal to others, and not for a tensor."""
    if node.op == "call_method":
        return node.target in _SIZES
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _PROPERTIES
    module = getattr(node.target, "__module__", "")
    return module == "_operator" and bool(node.all_input_nodes) and all(map(is_value, node.all_input_nodes))


def is_size(node: fx.Node) -> bool:
    """Whether a node stands for a size or a number of axes, or for what whole numbers are computed from these."""
    if node.op == "call_method":
        return node.target in _NUMBERS or (node.target == "size" and len(node.args) > 1)
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        shape, index = node.args
        return isinstance(shape, fx.Node) and is_value(shape) and not isinstance(index, slice)
    whole = node.target in _WHOLE and bool(node.all_input_nodes) and all(map(is_size, node.all_input_nodes))
    return whole and not any(isinstance(arg, float) for arg in node.args)


def is_looked_up(frame: FrameType) -> bool:
    """Whether code that asks for the hash of something looks for it in a set or a dict, and does not just store it."""
    step, loaded = _steps(frame.f_code).get(frame.f_lasti, ("", frozenset()))
    return step in _LOOKUPS or (step.startswith(("CALL", "PRECALL")) and not loaded.isdisjoint(_METHODS))


@functools.lru_cache(maxsize=1024)
def _steps(code: CodeType) -> dict[int, tuple[str, frozenset[str]]]:
    """By its offset, each instruction of some code, and the names of methods on its line."""
    steps = list(dis.get_instructions(code))
    on_line: dict[int | None, set[str]] = {}
    for step in steps:
        by_attribute = step.opname == "LOAD_ATTR" and _METHODS_ARE_ATTRIBUTES and (step.arg or 0) & 1
        if step.opname == "LOAD_METHOD" or by_attribute:
            on_line.setdefault(_line(step), set()).add(str(step.argval))
    return {step.offset: (step.opname, frozenset(on_line.get(_line(step), ()))) for step in steps}


_METHODS_ARE_ATTRIBUTES = sys.version_info >= (3, 12)
"""Whether one instruction loads both, told apart by its last bit."""


def _line(step: dis.Instruction) -> int | None:
    return step.positions.lineno if step.positions is not None else None
