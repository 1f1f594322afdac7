"""Faults of what lies between the user's module and a proof, and a watch that must notice each.

What a trace takes from a module, what holds in the other mode and at other sizes, what a plan from a file claims: each
fault switches one look off, and one of the small programs in `programs` is wrong, or refused without need, then.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from fxgrow.analysis.analysis import Analysis
from fxgrow.capture.inputs.second_sizes import Group
from fxgrow.capture.lowering.container_writes import WrittenContainers
from fxgrow.capture.recording.contexts import Contexts
from fxgrow.capture.recording.expressions import Numbers, Reader
from fxgrow.capture.recording.module_recording import Note
from fxgrow.capture.recording.recorder import DataAssigned
from fxgrow.capture.traced_model.decisions import Decisions
from fxgrow.capture.traced_model.traced import TracedModule
from fxgrow.capture.tracing.error_tracker import ErrorTracker
from fxgrow.capture.tracing.leaves import registered
from fxgrow.capture.tracing.proxies import Assignable, BufferProxy
from fxgrow.capture.tracing.trace_options import TraceOptions
from fxgrow.capture.tracing.values import Unknown, Values
from fxgrow.capture.user_objects.random_streams import Streams
from fxgrow.capture.user_objects.state_dict_hooks import Rebound
from fxgrow.functional import QUESTIONS, BufferGuard, ModeGuard, ModeValue
from fxgrow.planning.cuts import Cuts
from fxgrow.planning.recordings import Pairs
from fxgrow.planning.second_sizes import SecondSizes
from fxgrow.plans import NodeEdit
from fxgrow.proof.prove import ProofDomain
from fxgrow.schemes import prove
from fxgrow.schemes.parity import ParityDomain

from .gates import changed
from .lies import Plant
from .programs import PROGRAMS, first_wrong
from .ways import both, replaced

comparison: Any = importlib.import_module("fxgrow.capture.comparison.comparison")
expressions: Any = importlib.import_module("fxgrow.capture.recording.expressions")
traces: Any = importlib.import_module("fxgrow.capture.tracing.trace")


def method(place: type, name: str, function: Any) -> Plant:
    """A method is another one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(place, name, function)

    return plant


def wrapped(place: type, name: str, function: Callable[..., Any]) -> Plant:
    """A method is another one, which gets the old one first."""
    old = getattr(place, name)
    return method(place, name, lambda *args, **options: function(old, *args, **options))


def _tensors_only(reader: Any, arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return reader._number(arg)
    return tuple(_tensors_only(reader, a) for a in arg) if isinstance(arg, list | tuple) else ""


def _others_only(reader: Any, arg: Any) -> Any:
    if isinstance(arg, list | tuple):
        return tuple(_others_only(reader, a) for a in arg)
    return "" if isinstance(arg, Tensor) else repr(arg)


def _in_any_order(old: Callable[..., int], numbers: Numbers, key: Any) -> int:
    if isinstance(key, tuple) and len(key) == 5:
        key = (*key[:2], frozenset(value for _, value in key[2]), *key[3:])
    return old(numbers, key)


def _without_what_is_left(old: Callable[..., Any], *args: Any, **options: Any) -> Any:
    recording = old(*args, **options)
    recording.left = {}
    return recording


def _own_mode(old: Callable[..., Any], comparison: Any, training: bool) -> Any:
    return old(comparison, training) if training is comparison.model.training else None


def _whole(consumer: fx.Node, path: Any, number: fx.Node, wanted: Any, sight: Any) -> list[NodeEdit]:
    return [NodeEdit(consumer.name, path, str(number), wanted)]


def _swapped(value: ModeValue) -> Any:
    return value.in_evaluation if value.training else value.in_training


def _plain(old: Callable[..., bool], pairs: Any, one: Any, other: Any, **options: Any) -> bool:
    """Texts, flags and dtypes are all alike."""
    return isinstance(one, str | bool | torch.dtype) or old(pairs, one, other, **options)


def _any_dtype(old: Callable[..., str], *args: Any) -> str:
    problem = old(*args)
    return "" if "would return torch" in problem else problem


def _fits(analysis: Analysis, model: Any) -> bool:
    return bool(analysis.fingerprint == model.fingerprint)


def _in_one_mode(problem: Any, assignment: Any) -> Any:
    return prove(problem.dims, problem.sizes, assignment)


def _never_seeded(old: Callable[..., Any], func: Any) -> Any:
    return replace(old(func), seeded=False)


def _unknown(*_: Any) -> Any:
    raise Unknown


FIDELITY: dict[str, Plant] = {
    "traces are not compared": changed(capture__tracing__trace__compare=lambda *_: None),
    "arguments are not compared": method(Reader, "_key", _tensors_only),
    "operands are not compared": method(Reader, "_key", _others_only),
    "contexts are not compared": changed(
        capture__recording__module_recording___note=lambda: Note("", 0, "", Contexts(True, False, ()))
    ),
    "operands are compared in any order": wrapped(Numbers, "of", _in_any_order),
    "what is left in buffers is not compared": replaced(comparison, "record_model", _without_what_is_left),
    "tensors are compared by value": replaced(
        comparison, "difference", lambda old, ours, theirs, names, **options: old(ours, theirs, {}, **options)
    ),
    "the other mode is not compared": wrapped(comparison.Comparison, "differs", _own_mode),
    "other sizes are not compared": changed(capture__comparison__comparison__second=lambda *_: None),
    "draws are not seen": method(Streams, "drawn", lambda _: ()),
    "draws of torch are not counted": replaced(expressions, "spec_of", _never_seeded),
    "streams are not put back": method(Streams, "restore", lambda _: None),
    "runs on tensors are not compared": method(comparison.Comparison, "_with_tensors", lambda *_: None),
    "runs without gradients are not compared": method(comparison.Comparison, "_without_gradients", lambda *_: None),
    "data may be assigned": both(
        method(Assignable, "data", property(lambda proxy: proxy.detach(), lambda *_: None)),
        method(DataAssigned, "__torch_function__", lambda _, func, types, args=(), kwargs=None: func(*args)),
    ),
    "constants are kept from call to call": both(
        method(TraceOptions, "try_next", lambda _: False),
        changed(capture__recording__expressions___outlives=lambda *_: {}),
    ),
    "lookups are not noticed": changed(capture__tracing__proxies__asks_for_hash=lambda _: False),
    "classes are those of stand-ins": changed(capture__tracing__proxies__asks_for_class=lambda _: False),
    "nothing is known of the example": method(Values, "of", _unknown),
    "buffers that are read may change": method(BufferGuard, "forward", lambda *_: None),
    "pickle loses writes": changed(capture__tracing__tracer__TraceOptions=lambda **_: TraceOptions()),
    "errors that are handled are not noticed": method(ErrorTracker, "note_error", lambda *_: None),
    "dtypes of buffers are fixed": method(BufferProxy, "dtype", property(lambda proxy: proxy._real.dtype)),
    "all is traced out of place": method(Assignable, "_in_place", lambda *_: NotImplemented),
    "what is left in the inputs is not compared": changed(capture__recording__expressions__changes=lambda *_: {}),
    "what is left in the inputs may grow": method(WrittenContainers, "left", lambda _: []),
    "what is left in the inputs is not verified": changed(verification__compare__changes=lambda *_: {}),
    "classes of containers are not compared": changed(capture__recording__expressions__classes=lambda _: ""),
    "state-dict hooks stay bound to the original": method(Rebound, "__call__", lambda _, model: model),
    "state-dict methods are forgotten": changed(capture__tracing__trace__carry=lambda *_: None),
    "layers with state-dict hooks are shared": changed(
        capture__user_objects__state_dict_hooks___bind_layers=lambda *_: None
    ),
    "copies forget who saves them": method(TracedModule, "__deepcopy__", fx.GraphModule.__deepcopy__),
    "pickle makes a plain graph": method(TracedModule, "__reduce__", fx.GraphModule.__reduce__),
    "slots are not put back": changed(capture__user_objects__user_state__slots_of=lambda _: None),
    "arrays are not put back": changed(capture__user_objects__user_state__entries_of=lambda _: None),
    "iterators move on": changed(capture__user_objects__module_twin___iterator=lambda iterator: iterator),
    "iterators begin again for each recording": changed(capture__tracing__trace__iterators_copied_once=nullcontext),
    "gradients are not put back": changed(capture__tracing__trace__gradients_kept=lambda _: nullcontext()),
    "settings are not put back": both(
        changed(capture__tracing__trace__settings_kept=lambda _: nullcontext()),
        changed(capture__recording__module_recording__settings_kept=lambda _: nullcontext()),
    ),
    "what torch tests is decided": method(Decisions, "passed_on", lambda *_: None),
    "entries are never None": method(Assignable, "_or_none", lambda _, read: read),
    "None is not guarded": lambda patch: patch.setitem(QUESTIONS, "none", lambda _: True),
    "names of arguments are not guarded": lambda patch: patch.setitem(QUESTIONS, "keys", lambda _: ()),
    "sizes are not searched again": method(comparison.Comparison, "_further", lambda *_: None),
    "decisions are not guarded": changed(capture__traced_model__decisions__is_fixed=lambda *_: True),
    "layers with another forward are called": changed(
        capture__tracing__trace__check_called=lambda *_: None,
        capture__traced_model__checks__check_called=lambda *_: None,
        analysis__analysis__has_other_forward=lambda _: False,
    ),
    "what is compiled runs compiled": changed(
        capture__tracing__trace__eager=lambda **_: nullcontext(), capture__lowering__lowering__eager=nullcontext
    ),
    "twins call what they are made from": changed(
        capture__user_objects__module_twin__CALL="", capture__user_objects__module_twin__original=lambda thing: thing
    ),
    "nothing depends on being compiled": changed(capture__tracing__trace__check_compiled=lambda _: None),
    "libraries name no leaves": changed(capture__tracing__trace__registered=lambda *_: None),
    "leaves of libraries come first": replaced(
        traces, "leaves_of", lambda old, model, leaf: registered(model, old(model, leaf)) or old(model, leaf)
    ),
}
"""Of the comparison of a trace with its module."""
MODES: dict[str, Plant] = {
    "flags are the wrong way round": method(ModeValue, "forward", _swapped),
    "flags do not follow": changed(capture__tracing__trace__follow_flags=lambda *_, **__: set()),
    "a guard lets everything pass": method(ModeGuard, "forward", lambda _: None),
    "flags that other modules read are not compared": changed(
        capture__comparison__compare_trace__read_by_others=lambda _: ()
    ),
    "modules inside are not guarded": changed(capture__traced_model__modes___deciding=lambda *_: []),
    "writes of a train method are not seen": both(
        changed(capture__tracing__trace__written_by_train=lambda *_: []),
        changed(capture__traced_model__checks__written_by_train=lambda *_: []),
    ),
    "a train method of its own is forgotten": changed(capture__tracing__trace__has_train_of_its_own=lambda _: False),
    "buffers are frozen": replaced(traces, "_Settings", lambda old, *given: old(*given, fixed=None)),
    "other modes are not known": method(Analysis, "others", lambda *_: ()),
    "other modes are not proved": changed(schemes__auto__prove_in_modes=_in_one_mode),
    "other modes are not simulated": changed(planning__build_plan___in_other_modes=lambda *_: ()),
    "new units may be read nowhere": changed(proof__unread___sets=lambda _: []),
    "what is stored need not stay": both(
        method(ProofDomain, "keep", lambda *_: None), method(ParityDomain, "keep", lambda *_: None)
    ),
}
"""Of modes and state."""
SIZES: dict[str, Plant] = {
    "other sizes are not known": method(Analysis, "second", lambda *_: None),
    "numbers are pinned whole": both(
        changed(planning__input_sizes__followers=_whole), method(SecondSizes, "problem", lambda *_: "")
    ),
    "numbers that are the same at two sizes are constants": changed(
        planning__computed_numbers__follows_input=lambda *_: False
    ),
    "blocks are tried at one set of sizes": changed(insertion__inserting__check_other_sizes=lambda *_: None),
    "other units may be taken at other sizes": both(
        method(Cuts, "problem", lambda *_, **__: ""), changed(planning__build_plan__fails_at_other_sizes=lambda *_: ())
    ),
    "code is proved for the example's sizes alone": changed(planning__build_plan__fails_at_other_sizes=lambda *_: ()),
    "a growth is proved for the example's number of axes alone": changed(
        planning__build_plan__guards_of_ranks=lambda *_: ((), ())
    ),
    "slices of products are looked at for the example alone": method(Cuts, "_is_product", lambda *_: False),
    "units may be grouped otherwise at other sizes": method(Cuts, "regrouped", lambda *_: None),
    "axes of one size change together only": both(
        method(Group, "parts", lambda _: []), changed(analysis__analysis__of_one=lambda *_: iter(()))
    ),
    "a block takes one value": changed(insertion__inserting__fails_in_training=lambda *_: ()),
    "images stay square": both(
        changed(capture__inputs__second_sizes__MOST_APART=0), changed(analysis__analysis__apart=lambda *_: iter(()))
    ),
    "a block pools nothing": changed(insertion__other_sizes__smaller=lambda *_: iter(())),
    "a table has no end": changed(analysis__analysis__may_run=lambda _: True),
    "blocks are tried at two sets of sizes": changed(
        insertion__other_sizes__FURTHER=(), insertion__other_sizes__EXTREMES=()
    ),
}
"""Of sizes."""
WIDER: dict[str, Plant] = {
    "code is not compared at the new width": changed(planning__graph_edits__difference=lambda *_: ""),
    "functions are traced through unseen": changed(planning__whole_functions___difference=lambda *_: None),
    "operands may change places at the new width": method(Pairs, "same", lambda *_: True),
    "dtypes may change at the new width": both(wrapped(Pairs, "trees", _plain), wrapped(Pairs, "step", _any_dtype)),
    "what is known is never stale": method(Analysis, "fits", _fits),
    "plans are believed": changed(api__applying__proved_here=lambda _: True),
    "ties by memory are forgotten": both(
        *(
            changed(**{f"{place}__place_of": id})
            for place in (
                "capture__lowering__build",
                "capture__lowering__snapshot",
                "rewrite__apply",
                "rewrite__copies",
            )
        ),
        changed(rewrite__apply__overlapping=lambda _: [], rewrite__copies__overlapping=lambda _: []),
    ),
}
"""Of the user's code at the new width, and of what was found out before."""
FAULTS: dict[str, Plant] = {**FIDELITY, **MODES, **SIZES, **WIDER}
"""By what is wrong: how it is planted."""


SHOWN_BY: dict[str, tuple[str, ...]] = {
    "unfaithful traces": (
        "traces are not compared",
        "arguments are not compared",
        "operands are not compared",
        "contexts are not compared",
        "operands are compared in any order",
        "what is left in buffers is not compared",
        "tensors are compared by value",
        "other sizes are not compared",
        "draws are not seen",
        "draws of torch are not counted",
        "runs on tensors are not compared",
        "runs without gradients are not compared",
        "data may be assigned",
        "constants are kept from call to call",
    ),
    "traces of one mode": ("the other mode is not compared",),
    "surroundings": (
        "streams are not put back",
        "classes of containers are not compared",
        "pickle makes a plain graph",
    ),
    "what is asked": (
        "lookups are not noticed",
        "errors that are handled are not noticed",
        "dtypes of buffers are fixed",
        "decisions are not guarded",
    ),
    "missing entries": (
        "entries are never None",
        "None is not guarded",
        "names of arguments are not guarded",
    ),
    "sizes of one mode": ("sizes are not searched again",),
    "classes": (
        "classes are those of stand-ins",
        "nothing is known of the example",
    ),
    "guarded buffers": ("buffers that are read may change",),
    "pickle": ("pickle loses writes",),
    "in place": ("all is traced out of place",),
    "containers": (
        "what is left in the inputs is not compared",
        "what is left in the inputs may grow",
        "what is left in the inputs is not verified",
    ),
    "what is left": (
        "slots are not put back",
        "arrays are not put back",
        "iterators move on",
        "gradients are not put back",
        "settings are not put back",
    ),
    "an iterator": ("iterators begin again for each recording",),
    "what is saved": (
        "state-dict hooks stay bound to the original",
        "state-dict methods are forgotten",
        "layers with state-dict hooks are shared",
        "copies forget who saves them",
    ),
    "sizes that are passed on": ("what torch tests is decided",),
    "another forward": ("layers with another forward are called",),
    "compiled code": (
        "what is compiled runs compiled",
        "twins call what they are made from",
        "nothing depends on being compiled",
    ),
    "leaves of libraries": ("libraries name no leaves", "leaves of libraries come first"),
    "flags": (
        "flags are the wrong way round",
        "flags do not follow",
        "buffers are frozen",
    ),
    "one mode": ("a guard lets everything pass",),
    "a flag that is asked from outside": ("flags that other modules read are not compared",),
    "one mode inside": ("modules inside are not guarded",),
    "writes of train": ("writes of a train method are not seen",),
    "a train method": ("a train method of its own is forgotten",),
    "the other mode": (
        "other modes are not known",
        "other modes are not proved",
        "other modes are not simulated",
    ),
    "what is dropped": ("new units may be read nowhere",),
    "what is stored": ("what is stored need not stay",),
    "numbers": (
        "other sizes are not known",
        "numbers are pinned whole",
        "numbers that are the same at two sizes are constants",
        "code is not compared at the new width",
    ),
    "blocks": (
        "blocks are tried at one set of sizes",
        "blocks are tried at two sets of sizes",
    ),
    "cuts": (
        "other units may be taken at other sizes",
        "slices of products are looked at for the example alone",
        "units may be grouped otherwise at other sizes",
    ),
    "axes": ("code is proved for the example's sizes alone",),
    "numbers of axes": ("a growth is proved for the example's number of axes alone",),
    "lengths": ("axes of one size change together only",),
    "a batch of one": ("a block takes one value",),
    "proportions": ("images stay square",),
    "pooling in a block": ("a block pools nothing",),
    "the end of a table": ("a table has no end",),
    "wider code": (
        "operands may change places at the new width",
        "dtypes may change at the new width",
    ),
    "functions traced through": ("functions are traced through unseen",),
    "what is stale": ("what is known is never stale",),
    "plans": ("plans are believed",),
    "ties": ("ties by memory are forgotten",),
}
"""By program, the faults that it shows: it runs first for them."""


def noticed(first: str = "") -> str:
    """What is wrong with the programs; empty if all is right.

    Args:
        first: the program that runs before the others.
    """
    return first_wrong(PROGRAMS, first)
