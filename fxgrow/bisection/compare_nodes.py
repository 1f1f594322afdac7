"""Runs two graphs side by side on one probe, and compares the old channels of every node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from ..capture.containers import leaves
from ..capture.traced_model.interpreter import Interpreter
from ..verification.certificate import FLOAT64_BOUND, ROUNDING_MULTIPLE, ULPS
from ..verification.compare import epsilon_of, place, seeded, standing, twin
from ..verification.node_report import Where
from ..verification.old_units import Places, as_before, fitted, leading
from ..verification.precision import raised
from ..verification.probes import Probe
from .matching import Match

INPUT_SHARE = 1e-3
"""A result is compared on the scale of its largest entry, or of this part of its largest input: where large operands
cancel, the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The comparison of one pair of nodes: the largest difference of old channels, and its bound."""

    node: str
    difference: float
    bound: float
    where: Where | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is within its bound."""
        return self.difference <= self.bound


class _Record(Interpreter):
    """Runs a graph and keeps a copy of each node's result."""

    def __init__(self, model: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(model)
        self.wanted = wanted
        self.seen: dict[str, list[Tensor]] = {}

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the next input: `spread` has one value for each placeholder, also for `*rest` and `**more`."""
        return next(self.args_iter)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; its tensors are copied, in case a later node writes to them."""
        result = super().run_node(n)
        if n.name in self.wanted:
            self.seen[n.name] = [t.detach().clone() for t in _tensors(result)]
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in leaves(tree) if isinstance(x, Tensor)]


def _recorded(
    model: fx.GraphModule, probe: Probe, wanted: set[str], dtype: torch.dtype | None, training: bool, seed: int
) -> dict[str, list[Tensor]]:
    made = twin(model, dtype, training=training)
    assert isinstance(made, fx.GraphModule)
    device, kind = standing(made)
    given = probe.given.changed(lambda x: place(x, device, kind))
    record = _Record(made, wanted)
    with torch.no_grad(), seeded(seed), raised(epsilon_of(model)) if dtype is torch.float64 else nullcontext():
        record.called(given.args, given.kwargs)
    return record.seen


def side_by_side(
    before: fx.GraphModule,
    after: fx.GraphModule,
    some: Sequence[Match],
    probe: Probe,
    *,
    training: bool,
    seed: int,
    rounded: bool,
) -> list[Reading]:
    """Compare every pair of nodes in float64, in execution order of the grown graph.

    Args:
        before: the model before growth.
        after: the grown model.
        some: the pairs of nodes.
        probe: the inputs.
        training: whether the models run in training mode.
        seed: the seed of operators that draw random numbers.
        rounded: whether the growth had to round old entries to the models' dtype; the bounds then allow for it.
    """
    wanted = {m.after for m in some}, {m.before for m in some}
    new = _recorded(after, probe, wanted[0], torch.float64, training, seed)
    old = _recorded(before, probe, wanted[1], torch.float64, training, seed)
    bounds = dict.fromkeys(wanted[0], FLOAT64_BOUND)
    if rounded:
        dtype = next(p.dtype for p in before.parameters() if p.is_floating_point())
        floor = ULPS * torch.finfo(dtype).eps
        near = [
            _recorded(model, probe, w, None, training, seed)
            for model, w in zip((before, after), wanted[::-1], strict=True)
        ]
        for m in some:
            both = _rounding(old[m.before], near[0][m.before]) + _rounding(new[m.after], near[1][m.after])
            bounds[m.after] = max(FLOAT64_BOUND, ROUNDING_MULTIPLE * both + floor)
    nodes = {n.name: n for n in before.graph.nodes}
    found = []
    for m in some:
        read = [t for n in nodes[m.before].all_input_nodes for t in old.get(n.name, ())]
        scale = INPUT_SHARE * max((_largest(t) for t in read), default=0.0)
        found += list(_reading(m, old[m.before], new[m.after], scale, bounds[m.after], probe.batch_of_one))
    return found


def _reading(
    m: Match, old: list[Tensor], new: list[Tensor], scale: float, bound: float, other_sizes: bool
) -> Iterator[Reading]:
    """Compare one pair of nodes if possible; some cannot be with `other_sizes` than the plans were followed for."""
    if not old and not new:
        return
    if len(old) != len(new):
        if not m.new:
            yield Reading(m.after, inf, bound)
        return
    worst: tuple[float, Where | None] = (0.0, None)
    for number, (b, a) in enumerate(zip(old, new, strict=True)):
        places = _where(m, number, tuple(b.shape), tuple(a.shape))
        if places is None:
            if not m.output and (m.new or m.places is None or other_sizes):
                return  # a replacement of another shape, or other sizes without a plan: not comparable
            worst = inf, None
            continue
        here = _apart(b, list(places.readings(a)), scale)
        if here[0] > worst[0]:
            worst = here
    yield Reading(m.after, worst[0], bound, worst[1])


def _where(m: Match, number: int, old: tuple[int, ...], new: tuple[int, ...]) -> Places | None:
    if m.output:
        return as_before(new) if old == new else None
    if m.places is None or number >= len(m.places):
        return leading(old, new)
    places = m.places[number]
    if len(places.axes) == len(old) == len(new):
        rows = zip(places.axes, places.shape, old, new, strict=True)
        if all(now == (told if ways else was) for ways, told, was, now in rows):
            return places
    return fitted(places, old, new) if m.adapter else None


def _apart(before: Tensor, readings: Sequence[Tensor], scale: float) -> tuple[float, Where | None]:
    """Return the largest difference on the scale of the largest entry; infinite where non-finite entries differ.

    With several readings, each entry is compared with the nearest: queries may be copies where keys are shares.
    """
    if any(x.shape != before.shape for x in readings):
        return inf, None
    if not before.numel():
        return 0.0, None
    x, rows = _numbers(before), torch.stack([_numbers(reading) for reading in readings])
    same = (rows == x) | (rows.isnan() & x.isnan())
    gaps = torch.where(same, 0.0, (rows - x).abs().nan_to_num(nan=inf, posinf=inf))
    gap, nearest = gaps.min(0)
    index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    where = Where(index, float(x[index]), float(rows[(int(nearest[index]), *index)]))
    size, largest = max(_largest(x), scale), float(gap[index])
    return (largest / size if size > 0 else largest), where


def _rounding(fine: Sequence[Tensor], near: Sequence[Tensor]) -> float:
    return max((_apart(a, [b], 0.0)[0] for a, b in zip(fine, near, strict=True)), default=0.0)


def _numbers(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj()).sum(-1)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return (tensor if tensor.layout is torch.strided else tensor.to_dense()).detach().to("cpu", torch.float64)


def _largest(tensor: Tensor) -> float:
    x = _numbers(tensor)
    finite = x[x.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
