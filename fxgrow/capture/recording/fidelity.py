"""Check that a traced graph computes what its module computes, by comparing recordings of both.

Each operator becomes an expression over the inputs and the tensors of the model; equal expressions get equal numbers in
both recordings. The outputs, and the final contents of buffers and inputs (tensors, lists, dicts and dataclasses), must
be the same expressions. The order of independent operators, unused operators and repeated operators therefore do not
matter; every argument, dtype, flag and active context manager does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..containers import found, paths
from .expressions import AFTERWARDS, LEFT, OUTPUT, Numbers, Reader, Side
from .module_recording import Note, Recording
from .recorder import spec_of

_WRITE = (
    "write to inputs by plain operations that torch.fx can see, such as feats.append(y) and batch['y'] = y, or return "
    "what is computed"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference between what a module and its graph compute."""

    module: str
    """What the module runs."""
    graph: str
    """What the graph runs instead; empty if it runs nothing in its place."""
    where: str
    """The user's source line."""
    verb: str = "runs"
    hint: str = ""
    """A fix specific to this difference; empty if there is none."""
    end: str = ""
    """If all operators agree, the name of the output or of the final state that differs."""

    def __str__(self) -> str:
        return f"the module {self.verb} {self.module}, and the graph {self.graph or 'does not'}"


def difference(
    module: Recording, graph: Recording, names: dict[int, str], *, gradients: bool = True
) -> Difference | None:
    """Return the first difference between the recordings of a module and its graph; None if they are equivalent.

    Args:
        module: a recording of the module.
        graph: a recording of the graph, on the same inputs in the same mode.
        names: maps the `id` of each tensor of either model to the name that they share.
        gradients: whether running with autograd enabled in one and disabled in the other counts as a difference.
    """
    table = Numbers()
    ours, theirs = (Reader(side, table, names, gradients=gradients).read() for side in (module, graph))
    if ours.ends == theirs.ends:
        return None
    return _first(ours, theirs)


def _first(ours: Side, theirs: Side) -> Difference:
    """Describe the first operator that only one side runs, or else the first output or final state that differs."""
    known, made = {n for n, _ in theirs.steps}, {n for n, _ in ours.steps}
    mine = next((k for n, k in ours.steps if n not in known), None)
    other = next((k for n, k in theirs.steps if n not in made), None)
    if mine is None and other is None:
        name = next(k for k in (*ours.ends, *theirs.ends) if ours.ends.get(k) != theirs.ends.get(k))
        left, right = (_end(side.ends.get(name)) for side in (ours, theirs))
        where = next(filter(None, (_last_line(side, name) for side in (ours, theirs))), "")
        hint = _WRITE if AFTERWARDS in name else ""
        return Difference(f"{left} as {name}", f"has {right} there", where, "has", hint, end=name)
    left, right = ("" if k is None else _text(side, k) for k, side in ((mine, ours), (other, theirs)))
    where = _where((ours if mine is not None else theirs), mine if mine is not None else other)
    if left == right and mine is not None and other is not None:
        left, right = (
            f"{text} {more}" for text, more in zip((left, right), _apart(ours, mine, theirs, other), strict=True)
        )
    return Difference(left or "nothing more", f"runs {right}" if right else "", where)


def _apart(ours: Side, mine: int, theirs: Side, other: int) -> tuple[str, str]:
    """Describe how two calls with the same text differ: in their context managers, or in what produced an operand."""
    sides = (ours, mine), (theirs, other)
    here, there = (side.recording.notes[k].contexts for side, k in sides)
    if here != there:
        text = f"under {here.entered(there)}", f"under {there.entered(here)}"
        return text if text[0] != text[1] else (f"{text[0]} {here.autocast}", f"{text[1]} {there.autocast}")
    for one, two in zip(*(found(side.recording.calls[k][1:3], Tensor) for side, k in sides), strict=False):
        left, right = _source(ours, mine, one), _source(theirs, other, two)
        if left != right:
            return f"on {left}", f"on {right}"
    return "on one tensor", "on another of the same shape"


def _source(side: Side, k: int, tensor: Tensor) -> str:
    """Describe the origin of a tensor: the call before `k` that produced it, an input, or the model itself."""
    for number in reversed(range(k)):
        if any(t is tensor for t in found(side.recording.calls[number][3], Tensor)):
            return f"the result of {_text(side, number)}"
    names = (label for label, leaf in paths(side.recording.inputs, "input") if leaf is tensor)
    return next(names, "a tensor of the model")


def _last_line(side: Side, end: str) -> str:
    """Return the user's line that last computed or wrote an output, or a parameter or buffer after the call."""
    recording = side.recording
    outputs = dict(paths(recording.output, OUTPUT))
    tensor = outputs.get(end, recording.left.get(end.removeprefix(LEFT)))
    if not isinstance(tensor, Tensor):
        return ""
    calls = enumerate(recording.calls)
    return _where(side, max((k for k, call in calls if any(t is tensor for t in found(call[3], Tensor))), default=None))


def _end(end: Any) -> str:
    return "another value" if isinstance(end, int) else "nothing" if end is None else str(end)


def _text(side: Side, k: int) -> str:
    func, args, kwargs, _ = side.recording.calls[k]
    shown = [_short(a) for a in args] + [f"{name}={_short(a)}" for name, a in kwargs.items()]
    return f"{spec_of(func).name.removeprefix('aten::')}({', '.join(shown)})"


def _short(arg: Any) -> str:
    if isinstance(arg, Tensor):
        return "x".join(map(str, arg.shape)) or "a scalar"
    if isinstance(arg, list | tuple):
        return f"[{', '.join(map(_short, arg))}]"
    return repr(arg)


def _where(side: Side, k: int | None) -> str:
    note: Note | None = side.recording.notes[k] if k is not None else None
    return f"{note.file.rsplit('/', 1)[-1]}:{note.line}, in {note.function}" if note is not None and note.file else ""
