"""Writes through views: what the tensors underneath hold afterwards, as operators without side effects.

A write into a view gives its base a new value, the old one with that part replaced, and so on up to the tensor that
owns the storage. Every other view of it is then taken anew. This is torch's own way to make in-place code functional.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..program.call_key import Meta
from ..program.program import AFTER_WRITE, STORED, Op, Origin, Ref, Value, View

_RESHAPED = """view _unsafe_view reshape flatten unflatten ravel view_as reshape_as squeeze unsqueeze"""
"""The same elements in the same order."""
_SAME = """alias detach contiguous to dropout feature_dropout lift_fresh"""
"""The same tensor, where they copy nothing."""
_TWICE = """t numpy_T mT transpose swapaxes swapdims"""
"""Done twice, they change nothing."""
_PIECES = """chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split"""
_WAYS = {
    f"aten::{name}": way
    for way, names in {"reshape": _RESHAPED, "same": _SAME, "twice": _TWICE, "piece": _PIECES}.items()
    for name in names.split()
}

Call = tuple[str, dict[str, Any]]
"""The schema name and the arguments of an operator."""
Make = Callable[[Meta, Origin, str], Value]
"""Makes a new value of the program."""


def root_of(ref: Ref) -> Ref:
    """The tensor that a view is a view of, in the end."""
    while ref.view is not None:
        ref = ref.view.base
    return ref


def put_back(view: View, base: Value, part: Value) -> Call | None:
    """The operator that makes the base of a view when the view holds `part`; None if there is none."""
    name, args = view.op.name, view.op.args
    dim: Any = args.get("dim")
    into = {"self": base, "src": part, "dim": dim}
    match _WAYS.get(name, name):
        case "reshape" if args.get("dtype") is None:
            return "aten::reshape", {"self": part, "shape": list(base.shape)}
        case "same":
            return "aten::alias", {"self": part}
        case "twice":
            return name, {**args, "self": part}
        case "aten::permute":
            dims = [d % len(base.shape) for d in args["dims"]]
            return name, {"self": part, "dims": [dims.index(k) for k in range(len(dims))]}
        case "aten::movedim" | "aten::moveaxis":
            return name, {"self": part, "source": args["destination"], "destination": args["source"]}
        case "aten::select" | "aten::unbind":
            return "aten::select_scatter", {**into, "index": args.get("index", view.number)}
        case "aten::slice":
            return "aten::slice_scatter", {**into, **{k: args[k] for k in ("start", "end", "step")}}
        case "aten::narrow":
            start = args["start"] % base.shape[dim] if args["start"] < 0 else args["start"]
            return "aten::slice_scatter", {**into, "start": start, "end": start + args["length"], "step": 1}
        case "piece":
            start = sum(out.shape[dim] for out in view.op.outputs[: view.number])
            return "aten::slice_scatter", {**into, "start": start, "end": start + part.shape[dim], "step": 1}
    return None


def understood(written: Ref, views: list[Ref]) -> bool:
    """Whether it is known what a write does to everything else in the storage.

    It is not where several tensors of the model lie in the storage, nor where some view was made in a way that cannot
    be followed back. What is written into a parameter or buffer is still there in the next call: see `stored`.
    """
    root = root_of(written)
    if any(root_of(r) is not root for r in views):
        return False
    ref = written
    while ref.view is not None:
        if put_back(ref.view, ref.view.base.value, ref.value) is None:
            return False
        ref = ref.view.base
    return True


def refreshed(written: Ref, others: Sequence[Ref], node: str, make: Make) -> list[Op]:
    """Operators that give every tensor in the storage what it holds after a write; references are brought up to date.

    Pieces of one cut do not overlap, so what is written into one of them leaves the others alone.
    """
    if not others:
        return []
    ops: list[Op] = []
    path = [written]
    while path[-1].view is not None:
        view = path[-1].view
        call = put_back(view, view.base.value, path[-1].value)
        assert call is not None, "somebody has asked before whether the way back is known"
        overload = view.op.overload if call[0] == view.op.name else ""
        view.base.value = _again(view.base.value, node, make)
        ops.append(Op(*call, (view.base.value,), node, AFTER_WRITE, overload))
        path.append(view.base)
    cuts = {id(r.view.op) for r in path if r.view is not None}
    changed = {id(r) for r in path}
    retaken: dict[int, Op] = {}
    for ref in others:
        taken = ref.view
        if id(ref) in changed or taken is None or id(taken.base) not in changed or id(taken.op) in cuts:
            continue
        if id(taken.op) not in retaken:
            old = taken.op
            outputs = tuple(_again(out, node, make) for out in old.outputs)
            args = {**old.args, taken.argument: taken.base.value}
            op = Op(old.name, args, outputs, node, AFTER_WRITE, old.overload, draws=old.draws, repeats=old)
            retaken[id(old)] = op
            ops.append(op)
        ref.value = retaken[id(taken.op)].outputs[taken.number]
        changed.add(id(ref))
    return ops


def forgotten(written: Ref, before: Value, others: Sequence[Ref], writer: str, make: Make) -> list[Op]:
    """After a write of which nothing is known: an operator without a rule, through which all else there goes."""
    cut = written.view.op if written.view is not None else None
    views = [r for r in others if r.view is None or r.view.op is not cut]  # pieces of one cut do not overlap
    stale = tuple(r.value for r in views)
    node = written.value.node
    for r in views:
        r.value, r.view = _again(r.value, node, make), None
    written.view = None
    args = {"before": before, "views": list(stale), "writer": writer}
    op = Op("fxgrow::written_through_a_view", args, tuple(r.value for r in views), node, AFTER_WRITE)
    return [op] if views else []


def stored(ref: Ref, first: Value, lost: str) -> Op:
    """The operator that says what a parameter or buffer holds when the call ends; `first` is what it held before."""
    return Op(STORED, {"before": first, "after": ref.value, "lost": lost}, (), ref.value.node, AFTER_WRITE)


def _again(value: Value, node: str, make: Make) -> Value:
    """A new value of the same kind."""
    return make((value.shape, value.stride, value.dtype, value.device), Origin.COMPUTED, node)
