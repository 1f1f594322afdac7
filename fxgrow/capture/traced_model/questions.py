"""Detect requests of user code that torch.fx does not notice: the class of a proxy, and its hash.

`n in {16, 32}` and `table[n]` ask for a hash, `isinstance(n, int)` for a class. A size has no value of its own while a
model is traced, so proxies have to answer these requests, or refuse them.
"""

from __future__ import annotations

import dis
import functools
import operator
import re
import sysconfig
from functools import _lru_cache_wrapper
from types import CodeType, FrameType

import torch
from torch import fx

from ..source_lines import is_users

_PROPERTIES = frozenset({"shape", "dtype", "device", "ndim", "layout", "itemsize"})
_SIZES = frozenset({"size", "dim", "numel", "nelement", "ndimension", "stride", "element_size", "get_device"})
_LIBRARY = ("<", sysconfig.get_paths()["stdlib"])
"""Prefixes of the file names of generated code (that of a dataclass, say) and of Python's standard library."""
_SITE = re.compile("(site|dist)-packages")
READS = frozenset({"get", "pop", "setdefault"})
"""Methods that return an entry of a dict or a list."""
_NUMBERS = frozenset({"dim", "numel", "nelement", "ndimension"})
_WHOLE = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)


def is_value(node: fx.Node) -> bool:
    """Whether a node stands for a size, a dtype or another value compared by equality, and not for a tensor."""
    if node.op == "call_method":
        return node.target in _SIZES
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _PROPERTIES
    module = getattr(node.target, "__module__", "")
    return module == "_operator" and bool(node.all_input_nodes) and all(map(is_value, node.all_input_nodes))


def is_read(node: fx.Node) -> bool:
    """Whether a node reads an entry of a container or an attribute of an object."""
    if node.op == "call_method":
        return node.target in READS
    return node.op == "call_function" and node.target in (operator.getitem, getattr)


def is_size(node: fx.Node) -> bool:
    """Whether a node stands for a size or a number of dimensions, or for an integer computed from these."""
    if node.op == "call_method":
        return node.target in _NUMBERS or (node.target == "size" and len(node.args) > 1)
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        shape, index = node.args
        return isinstance(shape, fx.Node) and is_value(shape) and not isinstance(index, slice)
    whole = node.target in _WHOLE and bool(node.all_input_nodes) and all(map(is_size, node.all_input_nodes))
    return whole and not any(isinstance(arg, float) for arg in node.args)


def asks_for_class(frame: FrameType) -> bool:
    """Whether user code runs `isinstance(x, …)` or `torch.is_tensor(x)`; torch itself reads the class for other
    reasons.

    C code asks in the frame of its caller. It would treat a proxy that reports the class of a tensor as a real tensor,
    so its requests do not count.
    """
    python = frame.f_code is torch.is_tensor.__code__ and frame.f_back is not None
    if python and frame.f_back is not None:
        frame = frame.f_back
    asking = _outside_python(frame)
    if asking is None or not is_users(asking):
        return False
    return python or asking is not frame or not _calls_c_code(frame)


def _calls_c_code(frame: FrameType) -> bool:
    """Whether a frame is executing a call of something other than `isinstance`."""
    names = _called(frame.f_code, frame.f_lasti)
    return names is not None and "isinstance" not in names


@functools.lru_cache(maxsize=4096)
def _called(code: CodeType, offset: int) -> frozenset[str] | None:
    """Return the names at the start of a call, which show what is called; None if the instruction is not a call."""
    steps = list(dis.get_instructions(code))
    call = next((step for step in steps if step.offset == offset), None)
    if call is None or not call.opname.startswith("CALL"):
        return None
    named = [step for step in steps if isinstance(step.argval, str) and step.opname.startswith("LOAD_")]
    return frozenset(step.argval for step in named if step.opname != "LOAD_CONST" and _start(step) == _start(call))


def _start(step: dis.Instruction) -> tuple[int | None, int | None]:
    """Return the line and the column of an instruction in the source."""
    return (step.positions.lineno, step.positions.col_offset) if step.positions is not None else (None, None)


def asks_for_hash(frame: FrameType) -> bool:
    """Whether user code adds a proxy to a set or a dict, or looks it up there; torch itself hashes its own objects.

    Calls of functions under `functools.lru_cache` do not count: their arguments may be proxies, and the function runs.
    """
    asking = _outside_python(frame)
    return asking is not None and is_users(asking) and not _calls_a_cached_function(asking)


def _outside_python(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame whose code is not in Python's standard library."""
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        if _SITE.search(frame.f_code.co_filename):
            break
        frame = frame.f_back
    return frame


def _calls_a_cached_function(frame: FrameType) -> bool:
    """Whether the line that a frame is executing names a function under `functools.lru_cache`."""
    names = _names_on_line(frame.f_code).get(frame.f_lineno, frozenset())
    things = [space[name] for name in names for space in (frame.f_locals, frame.f_globals) if name in space]
    things += [getattr(type(thing), name, None) for thing in frame.f_locals.values() for name in names]
    return any(isinstance(thing, _lru_cache_wrapper) for thing in things)


@functools.lru_cache(maxsize=1024)
def _names_on_line(code: CodeType) -> dict[int | None, frozenset[str]]:
    """Return the names of functions, methods and variables on each line of a code object."""
    found: dict[int | None, set[str]] = {}
    for step in dis.get_instructions(code):
        if isinstance(step.argval, str):
            found.setdefault(_line(step), set()).add(step.argval)
    return {line: frozenset(names) for line, names in found.items()}


def _line(step: dis.Instruction) -> int | None:
    """Return the line of an instruction in the source."""
    return step.positions.lineno if step.positions is not None else None


def unpacked(frame: FrameType) -> int | None:
    """Return the number of names that code unpacks a proxy into, as in `n, c = x.shape`; None for other
    instructions."""
    return _unpackings(frame.f_code).get(frame.f_lasti)


@functools.lru_cache(maxsize=4096)
def _unpackings(code: CodeType) -> dict[int, int]:
    """Return the number of names that each unpacking instruction assigns, by its offset."""
    return {step.offset: step.argval for step in dis.get_instructions(code) if step.opname == "UNPACK_SEQUENCE"}
