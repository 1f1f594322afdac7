"""Decide whether a function that a trace keeps as one call may be traced through, because its trace runs the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from ..analysis.analysis import Analysis, analyse
from ..capture.containers import found, replaced
from ..capture.decomposition.function_bodies import is_whole_function, pair, read_by
from ..capture.program.call_key import meta_of_ref
from ..capture.program.program import NodeCall, Program, Ref
from ..capture.recording.fake_tensors import empty_fake
from ..capture.recording.fidelity import Difference, difference
from ..capture.recording.module_recording import StandIns, record_model
from ..capture.tracing.reasons import in_plain_words
from ..capture.user_objects.user_state import nothing_left_behind


@dataclass(slots=True)
class _Known:
    """A cache of the reasons why functions cannot be traced through, by node name."""

    why: dict[str, str] = field(default_factory=dict)


def why_kept_whole(gm: fx.GraphModule, analysis: Analysis, node: fx.Node) -> str:
    """Return why the function that a node calls cannot be traced through; empty if it can.

    The traced nodes must run the same operators as the function, one by one and with the same arguments: for the
    example inputs, for inputs of other sizes, and in both modes.

    Args:
        gm: The model.
        analysis: The analysis of the model.
        node: A call of a function that is kept whole.
    """
    known = analysis.kept(_Known, _Known).why
    if node.name not in known:
        known[node.name] = _why(gm, analysis, node)
    return known[node.name]


def _why(gm: fx.GraphModule, analysis: Analysis, node: fx.Node) -> str:
    """Compute the result of `why_kept_whole`, without its cache."""
    if not is_whole_function(node):
        return "it is not a function written in Python"
    try:
        with nothing_left_behind(node.target):
            models = pair(node)
            for where, program in _programs(gm, analysis):
                call = program.calls[node.name] if program is not None else None
                if call is None:
                    return f"{where} it cannot be run"
                if _writes_to_shared(call):
                    return "it writes to one of several arguments that share memory"
                given = _given(read_by(node, call.args, call.kwargs))
                if program is analysis.program:
                    analyse(models[1], given)  # raises an error if its nodes cannot be analysed
                other = _difference(models, given)
                if other is not None:
                    return f"{where} it does what its trace does not: it {other.verb} {other.module}"
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # user code may raise any exception
        return in_plain_words(error)
    return ""


def _given(read: Sequence[Any]) -> tuple[Any, ...]:
    """Return fake tensors and plain values like the inputs of a call."""
    mode = FakeTensorMode()
    made: tuple[Any, ...] = replaced(tuple(read), Ref, lambda ref: empty_fake(meta_of_ref(ref), mode))
    return made


def _difference(models: tuple[fx.GraphModule, fx.GraphModule], inputs: tuple[Any, ...]) -> Difference | None:
    """Return the first difference between a function and its trace for these arguments; None if there is none."""
    stand_ins = StandIns()
    ours, theirs = (record_model(model, inputs, {}, training=None, stand_ins=stand_ins) for model in models)
    return difference(ours, theirs, {})


def _writes_to_shared(call: NodeCall) -> bool:
    """Return whether a call modifies an argument in place while some of its arguments share memory."""
    storages = [ref.storage for ref in {id(ref): ref for ref in found((call.args, call.kwargs), Ref)}.values()]
    written = (call.template.storages[w.index] for step in call.template.steps for w in step.writes)
    return len(set(storages)) < len(storages) and any(place < len(storages) for place in written)


def _programs(gm: fx.GraphModule, analysis: Analysis) -> Iterator[tuple[str, Program | None]]:
    """Yield all programs of a model that are checked, each with a phrase for messages; None if it cannot be run."""
    yield "for the example inputs", analysis.program
    for mode in analysis.others(gm):
        yield f"in {mode.name}", mode.analysis.program if mode.analysis is not None else None
    for program in analysis.elsewhere(gm):
        yield "for inputs of other sizes", program
