"""Try every scheme on every axis of a model; apply each planned growth and compare the result in float64.

Growths that fit into one plan are applied together and compared once. If that plan is refused or changes the function,
it is split until each part is a single growth.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.dims.axis import Axis
from fxgrow.planning.decompose_attention import closed
from fxgrow.planning.targets import paths
from fxgrow.planning.widths import chosen_atoms
from fxgrow.plans import Chain, Grid, Layout, Leaf, Plan, Still, Woven
from fxgrow.plans.layout import size
from fxgrow.verification.certificate import FLOAT64_BOUND
from fxgrow.verification.compare import distance, run, twin
from fxgrow.verification.probes import Probe, probes

from .findings import Ask, Cell, Growth, Row, Unit, Units

SCHEMES = ("r2r", "net2net", "morphism", "zero", "mean", "auto")
FACTORS = (1.25, 2.0)
"""Growth factors, tried in this order. Small growths reveal the same errors as large ones, and odd numbers of new units
reveal more; uniform copies need twice the width."""
LARGE = 1_000_000
"""Number of parameters from which on grown copies are collected explicitly, because graph modules contain reference
cycles."""


def combine(
    name: str, model: nn.Module, inputs: tuple[Tensor, ...], schemes: Sequence[str] = SCHEMES, *, each: bool = False
) -> Row:
    """Try schemes on all axes of a model.

    Args:
        name: the name of the model.
        model: the model, in evaluation mode and float64, with weights that hide no errors (`subjects.settle`).
        inputs: its inputs.
        schemes: the schemes; the refusals of axes that none can grow are those of the last one.
        each: apply every growth separately instead of together with others in one plan.
    """
    start = time.perf_counter()
    gm = fxgrow.trace(model, inputs)
    asks = list(_asks(gm))
    probe = probes(inputs, 0)[0]
    before = {mode: _outputs(twin(gm, None, training=mode), probe) for mode in (False, True)}
    row = Row(name, {})
    for scheme in schemes:
        cell = row.cells[scheme] = _planned(gm, asks, scheme)
        for some in [[g] for g in cell.growths] if each else _batches(cell.growths):
            _compare(gm, some, scheme, probe, before, cell)
    row.seconds = time.perf_counter() - start
    return row


def _asks(gm: fx.GraphModule) -> Iterator[Ask]:
    """Yield each axis once; for products both factors, if both may grow or if undecomposed attention hides them."""
    analysis = analysis_of(gm)
    dims = analysis.dims
    seen: set[Axis] = set()
    for name, producer in paths(gm, dims).items():
        axis = dims.algebra.resolve(producer.axis)
        if axis in seen:
            continue
        seen.add(axis)
        yield Ask(name, "channels")
        ends = [chosen_atoms(dims, axis, end) for end in ("channels", "groups")]
        if ends[0] != ends[1] or (not ends[0] and closed(gm, dims, axis)):
            yield Ask(name, "groups")


def _planned(gm: fx.GraphModule, asks: Sequence[Ask], scheme: str) -> Cell:
    """Plan each growth separately."""
    cell = Cell()
    for ask in asks:
        for factor in FACTORS:
            try:
                plan = fxgrow.plan_widen(gm, ask.name, factor=factor, grow=ask.grow, scheme=scheme)
            except fxgrow.FxgrowError as refused:
                cell.refused.setdefault(ask, refused.refusal)
            else:
                cell.refused.pop(ask, None)
                cell.growths.append(Growth(ask, factor, _units(plan), bool(plan.eval_only)))
                break
    return cell


def _units(plan: Plan) -> Units:
    return frozenset(
        (edit.names[0], growth.axis, *leaf)
        for edit in plan.tensors
        for growth in edit.axes
        for leaf in _leaves(growth.layout, 1, 0)
    )


def _leaves(layout: Layout, stride: int, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield each growing set in the old layout, independent of how the layout is written: number of units, stride, and
    offset."""
    match layout:
        case Leaf():
            yield layout.old, stride, start
        case Grid():
            for k, part in enumerate(layout.parts):
                inner = stride * prod(size(p, new=False) for p in layout.parts[k + 1 :])
                block = inner * size(part, new=False)
                for outer in range(prod(size(p, new=False) for p in layout.parts[:k])):
                    yield from _leaves(part, inner, start + outer * block)
        case Chain():
            for part in layout.parts:
                yield from _leaves(part, stride, start)
                start += stride * size(part, new=False)
        case Woven():
            steps = [size(part, new=False) // layout.old for part in layout.parts]
            for k, part in enumerate(layout.parts):
                for units, apart, first in _leaves(part, 1, 0):
                    turn, at = divmod(first, steps[k])
                    far = apart if apart < steps[k] else apart // steps[k] * sum(steps)
                    yield units, stride * far, start + stride * (turn * sum(steps) + sum(steps[:k]) + at)
        case Still():
            return


def _batches(growths: Sequence[Growth]) -> list[list[Growth]]:
    """Group growths that fit into one plan: same factor, end and mode, and no shared units."""
    made: dict[tuple[float, str, bool], list[tuple[list[Growth], set[Unit]]]] = {}
    for growth in growths:
        alike = made.setdefault((growth.factor, growth.ask.grow, growth.eval_only), [])
        batch = next((some for some in alike if not growth.units & some[1]), None)
        if batch is None:
            alike.append(batch := ([], set()))
        batch[0].append(growth)
        batch[1].update(growth.units)
    return [some for alike in made.values() for some, _ in alike]


def _compare(
    gm: fx.GraphModule,
    some: list[Growth],
    scheme: str,
    probe: Probe,
    before: Mapping[bool, dict[str, Tensor] | None],
    cell: Cell,
) -> None:
    """Apply several growths with one plan and compare; split them in halves if there is no such plan, or if it is
    wrong."""
    names = [g.ask.name for g in some]
    try:
        plan = fxgrow.plan_widen(gm, names, factor=some[0].factor, grow=some[0].ask.grow, scheme=scheme)
    except fxgrow.FxgrowError as refused:
        cell.apart.append(f"{len(some)} from {names[0]} on ({refused.refusal.what})")
        wrong = {}
    else:
        wrong = _errors(fxgrow.apply(plan, gm), probe, before, training=not plan.eval_only)
        if plan.before.parameters > LARGE:
            gc.collect()
        if max(wrong.values()) <= FLOAT64_BOUND:
            cell.eval_error = max(cell.eval_error, wrong[False])
            if True in wrong:
                cell.train_error = max(cell.train_error or 0.0, wrong[True])
            return
    if len(some) == 1:
        cell.broken.append(f"{names[0]} ({some[0].ask.grow} x{some[0].factor}: {wrong})")
        return
    middle = len(some) // 2
    for part in (some[:middle], some[middle:]):
        _compare(gm, part, scheme, probe, before, cell)


def _errors(
    grown: fx.GraphModule, probe: Probe, before: Mapping[bool, dict[str, Tensor] | None], *, training: bool
) -> dict[bool, float]:
    """Return the largest relative difference for each mode (True: training). Training mode comes last, because it
    changes running statistics."""
    return {
        mode: _error(known, _outputs(grown.train(mode), probe))
        for mode, known in before.items()
        if known is not None and (training or not mode)
    }


def _outputs(model: nn.Module, probe: Probe) -> dict[str, Tensor] | None:
    try:
        return run(model, probe, seed=0)
    except ValueError:  # batch norm with one value per channel in training mode
        return None


def _error(before: dict[str, Tensor], after: dict[str, Tensor] | None) -> float:
    if after is None or before.keys() != after.keys():
        return float("inf")
    with torch.no_grad():
        return max((distance(x, after[name]) for name, x in before.items()), default=0.0)
