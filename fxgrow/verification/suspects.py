"""Lists where a grown model differs from its plans: tensors, attributes of modules, numbers in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..planning.arguments import at
from ..plans import AxisGrowth, Leaf, Plan
from ..plans.layout import leaves, partners, units
from ..plans.plan import FOLLOWED, RECOMPUTED, SPLIT, STATISTIC
from ..rewrite.apply import tensors_of
from .certificate import FLOAT64_BOUND, ULPS
from .follow import Followed
from .old_units import Places, as_before

PLAIN = (int, float, str, bool, tuple, type(None))
"""Types of module attributes that are compared."""

_REWRITTEN = frozenset({FOLLOWED, RECOMPUTED, SPLIT, STATISTIC})
"""Edits that replace an argument by other calls."""


def suspects(
    before: fx.GraphModule, after: fx.GraphModule, history: Sequence[Plan], followed: Followed
) -> tuple[str, ...]:
    """List everything that differs from the model before growth or from the plans, one line each."""
    return tuple(
        dict.fromkeys((*_entries(before, after, followed), *_blocks(after, history), *_numbers(before, after, history)))
    )


def new_entries_that_differ(after: nn.Module, history: Sequence[Plan]) -> tuple[str, ...]:
    """List new entries that are not in the state that the plans gave them, one line each."""
    return tuple(dict.fromkeys(_blocks(after, history)))


def _entries(before: fx.GraphModule, after: fx.GraphModule, followed: Followed) -> Iterator[str]:
    """Yield the tensors whose old entries changed."""
    new = tensors_of(after)
    for name, tensor in tensors_of(before).items():
        if name not in new or name.endswith("num_batches_tracked"):
            continue
        places = followed.tensors.get(name, as_before(tuple(tensor.shape)))
        index = _changed(tensor, new[name], places)
        if index is not None:
            yield f"{name}: its old entries changed, first at {list(index)}"


def _changed(old: Tensor, new: Tensor, places: Places) -> tuple[int, ...] | None:
    if places.shape != tuple(new.shape) or len(places.axes) != old.dim():
        return ()
    bound = _bound(old)
    a = _precise(old)
    readings = places.readings(_precise(new))
    wrong = torch.stack([~torch.isclose(a, x, rtol=bound, atol=0.0, equal_nan=True) for x in readings]).all(0)
    return tuple(int(i) for i in wrong.nonzero()[0]) if bool(wrong.any()) else None


def _precise(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.complex128 if tensor.is_complex() else torch.float64)


def _bound(tensor: Tensor) -> float:
    """Return the relative tolerance for a tensor's entries: shares and scales are rounded to the tensor's dtype."""
    fractions = tensor.is_floating_point() or tensor.is_complex()
    if not fractions or tensor.dtype in (torch.float64, torch.complex128):
        return FLOAT64_BOUND
    return float(ULPS * torch.finfo(tensor.dtype).eps)


def _blocks(after: nn.Module, history: Sequence[Plan]) -> Iterator[str]:
    """Yield new entries that are not in their planned state, unless a later growth has moved them."""
    tensors = tensors_of(after)
    found: dict[str, tuple[tuple[int, ...], tuple[AxisGrowth, ...]]] = {}
    for plan in history:
        found |= {edit.names[0]: (edit.new, edit.axes) for edit in plan.tensors if not plan.noise}
        for insert in plan.inserts:
            found |= {f"{insert.name}.{t.name}": (t.shape, t.axes) for t in insert.tensors}
            zeros = [f"{insert.name}.{t.name}" for t in insert.tensors if t.fill == "zero"]
            yield from (f"{n}: its entries are not zero" for n in zeros if n in tensors and bool(tensors[n].any()))
    for name, (shape, axes) in found.items():
        tensor = tensors.get(name)
        if tensor is not None and tuple(tensor.shape) == shape:
            yield from _states(name, _precise(tensor), axes, _bound(tensor))


def _states(name: str, tensor: Tensor, axes: Sequence[AxisGrowth], bound: float) -> Iterator[str]:
    for growth in axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            text = _broken(tensor, growth, number, leaf, bound)
            if text:
                yield f"{name}: {text} (axis {growth.axis})"


def _broken(tensor: Tensor, growth: AxisGrowth, number: int, leaf: Leaf, bound: float) -> str:
    """Describe how a set of new units differs from its planned state; "" if it does not."""
    left, right, lone = (_take(tensor, growth.axis, places) for places in partners(growth.layout, number))
    rows = [_take(tensor, growth.axis, places) for places in units(growth.layout, number)]
    match leaf.state:
        case "even":
            return "" if _same(left, right, bound) else "its new halves are not equal"
        case "odd":
            alike = _same(left, -right, bound) and not bool(lone.any())
            return "" if alike else "its new halves are not opposite"
        case "zero":
            return "its new entries are not zero" if any(bool(x.any()) for x in (left, right, lone)) else ""
        case "copy" | "split":
            pairs = ((rows[unit], rows[leaf.old + k]) for k, unit in enumerate(leaf.source))
            return "" if all(_same(a, b, bound) for a, b in pairs) else "its copies differ from their originals"
        case "mean":
            old = torch.stack(rows[: leaf.old])
            allowed = bound * max(float(old.abs().max()), 1e-300)
            alike = all(float((row - old.mean(0)).abs().max()) <= allowed for row in rows[leaf.old :])
            return "" if alike else "its new entries are not the mean of the old ones"
    return ""


def _take(tensor: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    return tensor.index_select(axis, torch.tensor(places, dtype=torch.int64))


def _same(a: Tensor, b: Tensor, bound: float) -> bool:
    return torch.allclose(a, b, rtol=bound, atol=0.0, equal_nan=True)


def _numbers(before: fx.GraphModule, after: fx.GraphModule, history: Sequence[Plan]) -> Iterator[str]:
    """Yield attributes of modules and constants in the graph that differ."""
    planned = {(m.path, name): new for plan in history for m in plan.modules for name, _, new in m.attributes}
    new_modules = dict(after.named_modules(remove_duplicate=False))
    for path, module in before.named_modules(remove_duplicate=False):
        for name, value in _plain(module):
            other = new_modules.get(path)
            if path and other is not None and getattr(other, name, value) != planned.get((path, name), value):
                yield f"{path}.{name}: {getattr(other, name)}, not {planned.get((path, name), value)}"
    nodes = {n.name: n for n in after.graph.nodes}
    edits = {(e.node, e.path): e.new for plan in history for e in plan.nodes if e.path[0] not in _REWRITTEN}
    for (node, path), value in edits.items():
        if node in nodes and _found(nodes[node], path) != value:
            yield f"{node} {'.'.join(map(str, path))}: {_found(nodes[node], path)}, not {value}"


def _found(node: fx.Node, path: tuple[str | int, ...]) -> object:
    try:
        return at(node, path)
    except (IndexError, KeyError, TypeError, AttributeError):
        return None


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in module.__dict__.items():
        if not name.startswith("_") and name != "training" and isinstance(value, PLAIN):
            yield name, value
