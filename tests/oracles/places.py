"""Labels where units are chosen by number, where a part of a tensor is replaced, and under a bilinear map."""

from __future__ import annotations

import torch

from fxgrow.capture.program.program import Op

from .labels import Labelling, Planes, place, scattered


def looked_up(orbits: Labelling, op: Op) -> list[Planes]:
    """embedding, index_select, gather: labels along other axes than the one that is indexed."""
    if op.name in ("aten::embedding", "aten::embedding_bag"):
        rank = len(op.outputs[0].shape)
        return [[place(p, [0, rank - 1], rank) for p in orbits.of(op.args["weight"]) if p.shape[0] == 1]]
    args, x = op.args, op.args["self"]
    chosen = [v for v in op.inputs() if v is not x]
    if any(v.dtype is torch.bool for v in chosen):
        return []
    over = [args["dim"] % len(x.shape)] if "dim" in args else [k for k, i in enumerate(args["indices"]) if i]
    return orbits.rearrange(op, [p for p in orbits.of(x) if all(p.shape[k] == 1 for k in over)])


def written(orbits: Labelling, op: Op) -> list[Planes]:
    """slice_scatter and select_scatter: the part meets what it replaces."""
    x, args = op.args["self"], op.args
    at = args["dim"] % len(x.shape)
    one = "index" in args
    start = args["index"] % x.shape[at] if one else args["start"]
    places = range(x.shape[at])[start : start + 1 if one else args["end"] : 1 if one else args["step"]]
    rows = torch.tensor(list(places), dtype=torch.int64)
    part = [p.unsqueeze(at) for p in orbits.of(args["src"])] if one else orbits.of(args["src"])
    orbits.labels.meet_all([[p if p.shape[at] == 1 else p.index_select(at, rows) for p in orbits.of(x)], part])
    wide = [p if p.shape[at] == 1 else scattered(p, at, rows, x.shape[at]) for p in part]
    return [[*orbits.of(x), *wide]]


def put(orbits: Labelling, op: Op) -> list[Planes]:
    """index_put of one number: a mask meets the axes that it chooses from."""
    x, rank = op.args["self"], len(op.outputs[0].shape)
    some = [(k, index) for k, index in enumerate(op.args["indices"]) if index is not None]
    if len(some) > 1 or some[0][1].dtype is not torch.bool or op.args["values"].shape:
        return []
    start, mask = some[0]
    at = list(range(start, start + len(mask.shape)))
    return [orbits.added(rank, orbits.of(x), [place(p, at, rank) for p in orbits.of(mask)])]


def bilinear(orbits: Labelling, op: Op) -> list[Planes]:
    """Two inputs and a weight of three axes, one after the other."""
    a, b, weight = (op.args[name] for name in ("input1", "input2", "weight"))
    rest = [f"b{k}" for k in range(len(a.shape) - 1)]
    half = orbits.contract((orbits.of(a), [*rest, "i"]), (orbits.of(weight), ["o", "i", "j"]), [*rest, "o", "j"])
    planes = orbits.contract((half, [*rest, "o", "j"]), (orbits.of(b), [*rest, "j"]), [*rest, "o"])
    bias = op.args.get("bias")
    return [orbits.added(len(op.outputs[0].shape), planes, [] if bias is None else orbits.of(bias))]
