"""Where a node comes from: the user's own source line, as far as the trace recorded it."""

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
"""The folder of fxgrow's capture."""
_OTHERS = (torch.__file__.rpartition("/")[0] + "/", CAPTURE)
"""Folders whose lines are not the user's: torch, and the tracer."""
_LIBRARY = ("<", sysconfig.get_paths()["stdlib"])
"""Files of code that is generated, of a dataclass say, and of Python's library."""
_SITES = ("site-packages", "dist-packages")
"""Folders inside that of Python's library that are not of it."""
_TRACE = fx.Tracer.trace.__code__
_ASSIGNED = re.compile(r"(\w+) = ")
"""In a line of code that torch.fx has written: the first name is that of the node."""


def location(gm: fx.GraphModule, name: str) -> str:
    """A node with the line of user code that made it, or with its own text where the trace recorded no lines."""
    node = next((n for n in gm.graph.nodes if n.name == name), None)
    if node is None or node.op == "output":
        return name
    frame = user_frame(node.stack_trace or "")
    return f"{name}, {frame}" if frame else f"{name}:  {node.format_node()}"


def raising_node(gm: fx.GraphModule, error: Exception | None) -> str:
    """The node of a graph, with its line of user code, that has raised an error; empty if none can be told."""
    names, code = {node.name for node in gm.graph.nodes}, gm.code.splitlines()
    for frame, line in traceback.walk_tb(error.__traceback__ if error is not None else None):
        if frame.f_code.co_filename.startswith("<eval_with_key") and line <= len(code):
            assigned = _ASSIGNED.findall(code[line - 1])
            return next((location(gm, name) for name in assigned if name in names), "")
    return ""


def forward_line(model: nn.Module, *, returns: bool) -> str:
    """The line of user code in which `forward` of a model begins.

    Args:
        model: any module.
        returns: whether the line is wanted in which it returns, if there is one such line only.
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
    """The innermost frame of a recorded stack of the user's own code, as `file.py:12:  code`."""
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
    """The lines of the user's code that are running since the trace began, as `traceback` prints them; None if none is.

    Args:
        frame: the innermost one.
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
    """The line of the user's code that is running, as `file.py:12, in forward:  code`; empty if none is.

    Args:
        frame: the innermost one.
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
    """Whether code of the user's, or of a library of models, is running."""
    return not frame.f_code.co_filename.startswith(_OTHERS)


def user_place(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """The instruction of the user's code that is running: its code and the offset."""
    while frame is not None and frame.f_code.co_filename.startswith(_OTHERS):
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lasti)


def located(error: E) -> E:
    """An error of fxgrow's own that user code has met, with the line of that code if it names no other place."""
    return error if error.refusal.where else type(error)(replace(error.refusal, where=user_line(error)))


def user_line(error: Exception) -> str:
    """The last line of user code in the traceback of an error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OTHERS)]
    frames = [f for f in frames if "<eval" not in f.filename]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}, in {last.name}:  {last.line}"
