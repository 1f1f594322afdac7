"""Find the user's source line for a node, a stack frame or an error."""

from __future__ import annotations

import dis
import inspect
import linecache
import re
import sysconfig
import traceback
from dataclasses import replace
from types import CodeType, FrameType
from typing import TypeVar

import torch
from torch import fx, nn

from ..errors import FxgrowError

E = TypeVar("E", bound=FxgrowError)
CAPTURE = __file__.rpartition("/")[0] + "/"
"""The folder of `fxgrow.capture`."""
_OTHERS = (torch.__file__.rpartition("/")[0] + "/", CAPTURE)
"""Folders whose lines are not user code: torch and `fxgrow.capture`."""
_LIBRARY = ("<", sysconfig.get_paths()["stdlib"])
"""Prefixes of the files of generated code, such as a dataclass's `__init__`, and of Python's standard library."""
_SITES = ("site-packages", "dist-packages")
"""Folders inside that of the standard library that are not part of it."""
_TRACE = fx.Tracer.trace.__code__
_ASSIGNED = re.compile(r"(\w+) = ")
"""Matches an assignment in code that torch.fx generated; the assigned name is the name of the node."""


def location(gm: fx.GraphModule, name: str) -> str:
    """Return a node's name with the line of user code that created it, or with its own text if no line was recorded."""
    node = next((n for n in gm.graph.nodes if n.name == name), None)
    if node is None or node.op == "output":
        return name
    frame = user_frame(node.stack_trace or "")
    return f"{name}, {frame}" if frame else f"{name}:  {node.format_node()}"


def raising_node(gm: fx.GraphModule, error: Exception | None) -> str:
    """Return the node of a graph that raised an error, with its line of user code; empty if it cannot be determined."""
    names, code = {node.name for node in gm.graph.nodes}, gm.code.splitlines()
    for frame, line in traceback.walk_tb(error.__traceback__ if error is not None else None):
        if frame.f_code.co_filename.startswith("<eval_with_key") and line <= len(code):
            assigned = _ASSIGNED.findall(code[line - 1])
            return next((location(gm, name) for name in assigned if name in names), "")
    return ""


def forward_line(model: nn.Module, *, returns: bool) -> str:
    """Return the line of user code where `forward` of a model begins.

    Args:
        model: any module.
        returns: return the line of its `return` statement instead, if there is only one.
    """
    code = getattr(inspect.unwrap(model.forward), "__code__", None)
    if code is None:
        return ""
    steps = [step.positions for step in dis.get_instructions(code) if step.opname.startswith("RETURN_")]
    lines = {positions.lineno for positions in steps if positions is not None}
    line = lines.pop() if returns and len(lines) == 1 else None
    text = linecache.getline(code.co_filename, line or code.co_firstlineno).strip()
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{line or code.co_firstlineno}, in {code.co_name}:  {text}"


def user_frame(stack: str) -> str:
    """Return the innermost frame of user code in a recorded stack trace, as `file.py:12:  code`; empty if none."""
    frames: list[list[str]] = []
    for line in (text.strip() for text in stack.strip().splitlines()):
        if line.startswith('File "'):
            frames.append([line, ""])
        elif line and frames and not frames[-1][1]:
            frames[-1][1] = line
    own = [(f, code) for f, code in frames if not f.split('"')[1].startswith(_OTHERS)]
    if not own:
        return ""
    where, code = own[-1]
    path, rest = where.split('"')[1:3]
    return f"{path.rsplit('/', 1)[-1]}:{rest.split('line ')[-1].split(',')[0]}:  {code}"


def user_stack(frame: FrameType | None) -> str | None:
    """Return the running frames of user code inside the current trace, as `traceback` prints them; None if none.

    Args:
        frame: the innermost frame.
    """
    found: list[traceback.FrameSummary] = []
    while frame is not None:
        code = frame.f_code
        if code is _TRACE:
            break
        if not code.co_filename.startswith(_OTHERS):
            found.append(traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name, lookup_line=False))
        frame = frame.f_back
    return "".join(traceback.StackSummary.from_list(found[::-1]).format()).strip() or None


def user_code_line(frame: FrameType | None) -> str:
    """Return the line of user code that is running, as `file.py:12, in forward:  code`; empty if none.

    Args:
        frame: the innermost frame.
    """
    while frame is not None and frame.f_code.co_filename.startswith((*_OTHERS, *_LIBRARY)):
        if any(part in frame.f_code.co_filename for part in _SITES) and is_users(frame):
            break
        frame = frame.f_back
    if frame is None:
        return ""
    path, line = frame.f_code.co_filename, frame.f_lineno
    return f"{path.rsplit('/', 1)[-1]}:{line}, in {frame.f_code.co_name}:  {linecache.getline(path, line).strip()}"


def is_users(frame: FrameType) -> bool:
    """Return whether a frame runs code of the user or of a model library."""
    return not frame.f_code.co_filename.startswith(_OTHERS)


def user_place(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """Return the instruction of user code that is running, as code object and offset; None if none."""
    while frame is not None and frame.f_code.co_filename.startswith(_OTHERS):
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lasti)


def located(error: E) -> E:
    """Return an error of fxgrow with its location set to the line of user code that met it, if it has no location."""
    return error if error.refusal.where else type(error)(replace(error.refusal, where=user_line(error)))


def user_line(error: Exception) -> str:
    """Return the last line of user code in the traceback of an error; empty if none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OTHERS)]
    frames = [f for f in frames if "<eval" not in f.filename]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}, in {last.name}:  {last.line}"
