"""Functionalization: express in-place writes through views as operators without side effects.

A write into a view gives its base a new value: the old value with that part replaced, and so on up to the tensor that
owns the storage. Every other view of that tensor is then recomputed from its base, as in torch's own functionalization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..program.call_key import Meta
from ..program.program import AFTER_WRITE, STORED, Op, Origin, Ref, Value, View

_RESHAPED = """view _unsafe_view reshape flatten unflatten ravel view_as reshape_as squeeze unsqueeze"""
"""Views with the same elements in the same order."""
_SAME = """alias detach contiguous to dropout feature_dropout lift_fresh"""
"""Operators that return the same tensor if they do not copy."""
_TWICE = """t numpy_T mT transpose swapaxes swapdims"""
"""Views that are their own inverse."""
_PIECES = """chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split"""
_WAYS = {
    f"aten::{name}": way
    for way, names in {"reshape": _RESHAPED, "same": _SAME, "twice": _TWICE, "piece": _PIECES}.items()
    for name in names.split()
}

Call = tuple[str, dict[str, Any]]
"""The schema name and the arguments of an operator."""
Make = Callable[[Meta, Origin, str], Value]
"""Creates a new value of the program."""


def root_of(ref: Ref) -> Ref:
    """Return the base at the end of a chain of views: the tensor that is not a view itself."""
    while ref.view is not None:
        ref = ref.view.base
    return ref


def put_back(view: View, base: Value, part: Value) -> Call | None:
    """Return the operator that computes the base of a view when the view holds `part`; None if there is none."""
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
    """Return whether the effect of a write on all other tensors in the storage is known.

    It is not known if several tensors of the model share the storage, or if `put_back` cannot invert one of the views.
    A write into a parameter or buffer persists in the next call; see `stored`.
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
    """Return operators that compute every other tensor in the storage after a write, and update the references.

    The results of one `split` or `chunk` do not overlap, so a write into one of them does not affect the others.
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
    """Return an operator without a rule that gives all other tensors in the storage unknown values after a write."""
    cut = written.view.op if written.view is not None else None
    views = [r for r in others if r.view is None or r.view.op is not cut]  # results of one split do not overlap
    stale = tuple(r.value for r in views)
    node = written.value.node
    for r in views:
        r.value, r.view = _again(r.value, node, make), None
    written.view = None
    args = {"before": before, "views": list(stale), "writer": writer}
    op = Op("fxgrow::written_through_a_view", args, tuple(r.value for r in views), node, AFTER_WRITE)
    return [op] if views else []


def stored(ref: Ref, first: Value, lost: str) -> Op:
    """Return the STORED operator of a parameter or buffer; `first` is its value before the call."""
    return Op(STORED, {"before": first, "after": ref.value, "lost": lost}, (), ref.value.node, AFTER_WRITE)


def _again(value: Value, node: str, make: Make) -> Value:
    """Return a new value with the same metadata."""
    return make((value.shape, value.stride, value.dtype, value.device), Origin.COMPUTED, node)
