"""Normalisations: per channel, per group, or over a whole axis (which only some states of the new units pass)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Product, Sum, atoms
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, register
from .mixing import TWINS, Mixing

_TAKEN = "{} takes its statistics over it"


class PerChannel(SameSizes):
    """batch_norm and instance_norm: statistics of each channel (axis 1) by itself.

    With equal statistics and equal affine entries equal halves stay equal, in training mode too. Opposite halves
    would stay opposite with opposite shifts; a block of zeros would be divided by the root of epsilon alone, and so
    shares of a unit do not pass: in training mode epsilon would count for more in a share than in the whole.
    """

    by_index = True
    vectors = ("weight", "bias", "running_mean", "running_var")

    def _over(self, op: Op) -> list[int]:
        """The axes over which statistics are taken that no call keeps: those of kernels that are standardised."""
        if any(op.args.get(name) is not None for name in ("running_mean", "running_var")):
            return []
        rank = len(op.args["input"].shape)
        if op.args.get("training"):
            return [0, *range(2, rank)]
        return list(range(2, rank)) if op.args.get("use_input_stats") else []

    def dims(self, op: Op, d: AxisContext) -> None:
        """Affine entries and running statistics lie along the channels; other axes pass if their units are new."""
        axes, over = d.of(op.args["input"]), self._over(op)
        for vector in (op.args[name] for name in self.vectors if op.args.get(name) is not None):
            axes[1] = d.unify(axes[1], d.of(vector)[0])
        alone = op.name == "aten::instance_norm" and prod(op.args["input"].shape[2:]) <= TWINS
        held = [0] if d.fresh and not alone else [k for k in range(len(axes)) if k != 1 and (d.fresh or k not in over)]
        for k in held:
            d.freeze(axes[k], Kind.NORM, _TAKEN.format("a normalisation"))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """What is subtracted is of the parity of the volume, what is added of that of the scaled volume."""
        marks, axes = s.of(op.args["input"]), s.axes(op.args["input"])
        out = [s.forget_index(x, axes[:1] + axes[2:]) for x in marks[1]]
        out = [s.require(op, x, even=False, why="it is divided by its own deviation") for x in out]
        out = [s.map_units(op, [x], odd=True, zero=True) for x in out]
        for name, combine in (("running_mean", s.add), ("running_var", s.mul), ("weight", s.mul), ("bias", s.add)):
            if op.args.get(name) is None:
                continue
            some = s.of(op.args[name])[0]
            if name == "running_var":
                some = [s.require(op, state, even=True, why="halves need one deviation") for state in some]
            out = [combine(op, pair) for pair in zip(out, some, strict=True)]
        rest = [marks[0], *marks[2:]]
        if any(rest):
            mixing = self._mixing(op, s)
            for row in rest:
                row[:] = [s.mix(op, x, mixing) for x in row]
                if op.args.get("bias") is not None:
                    row[:] = [s.add(op, [x, s.same]) for x in row]
        s.set(op.outputs[0], [rest[0], out, *rest[1:]])

    def _mixing(self, op: Op, s: StateContext) -> Mixing:
        axes, rank = s.axes(op.args["input"]), len(op.args["input"].shape)
        weight, bias = op.args.get("weight"), op.args.get("bias")
        gain = s.gain(weight) if weight is not None and bias is None else None
        over = [axes[k] for k in self._over(op) or range(2, rank)]
        return mixed(op, s, over, kind="batch_norm", gain=gain)


class GroupNorm(SameSizes):
    """group_norm: channels are (g c); whole groups may be added, channels within a group may not.

    All channels of a single group may be copied equally often. What statistics are taken over may be two equal halves
    if all of it is new: both see the same.
    """

    by_index = True

    def _split(self, d: AxisContext | StateContext | SizeContext, op: Op, axis: Axis, size: int) -> list[Axis]:
        return d.algebra.split(axis, (op.args["num_groups"], size // op.args["num_groups"]), (id(op), "groups"))

    def dims(self, op: Op, d: AxisContext) -> None:
        """Freeze what a group's statistics mix."""
        x = op.args["input"]
        axes = d.of(x)
        for name in ("weight", "bias"):
            if op.args[name] is not None:
                axes[1] = d.unify(axes[1], d.of(op.args[name])[0])
        _, channels = self._split(d, op, axes[1], x.shape[1])
        degenerate = prod(x.shape[1:]) <= TWINS * op.args["num_groups"]
        held = axes[2:] if op.args["num_groups"] == 1 else [channels, *axes[2:]]  # of one group copies keep all
        if d.fresh and degenerate:
            d.freeze(channels, Kind.NORM, "of two equal values a group norm leaves nothing")
        for axis in [] if d.fresh and not degenerate else held:
            d.freeze(axis, Kind.NORM, _TAKEN.format("a group norm"))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Twin groups have equal statistics; twins within a group have the same."""
        x = op.args["input"]
        _, channels = self._split(s, op, s.axes(x)[1], x.shape[1])
        over = [channels, *s.axes(x)[2:]]
        marks = [[s.forget_index(y, over) for y in states] for states in s.of(x)]
        if op.args["num_groups"] == 1:
            mixing = mixed(op, s, s.axes(x)[1:], op.args["weight"], kind="group_norm")
            row = [s.mix(op, y, mixing) for y in marks[1]]
        else:
            row = [s.require(op, y, even=True, why="twins need equal statistics") for y in marks[1]]
            row = [s.map_units(op, [y], odd=False, zero=False) for y in row]
        for name, combine in (("weight", s.mul), ("bias", s.add)):
            if op.args[name] is not None:
                row = [combine(op, pair) for pair in zip(row, s.of(op.args[name])[0], strict=True)]
        affine = op.args["bias"] is not None
        out = each(op, s, marks, odd=not affine, zero=not affine, unsafe=True)
        s.set(op.outputs[0], [out[0], row, *out[2:]])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """The number of groups follows."""
        x = op.args["input"]
        return {"num_groups": z.size(self._split(z, op, z.axes(x)[1], x.shape[1])[0])}


class WholeAxis:
    """layer_norm and rms_norm: every unit depends on all units of the normalised axes."""

    by_index = True

    def _over(self, op: Op) -> int:
        return len(op.args["normalized_shape"])

    def _epsilon(self, op: Op) -> float:
        """Where rms_norm is given none, torch takes the precision in which it computes."""
        double = op.args["input"].dtype is torch.float64
        default = torch.finfo(torch.float64 if double else torch.float32).eps
        return default if op.args.get("eps") is None else float(op.args["eps"])

    def dims(self, op: Op, d: AxisContext) -> None:
        """All axes pass; which states may grow is a matter of the scheme."""
        axes = d.of(op.args["input"])
        over = self._over(op)
        for name in ("weight", "bias"):
            value = op.args.get(name)
            if value is not None:
                for k, axis in enumerate(d.of(value)):
                    at = len(axes) - over + k
                    axes[at] = d.unify(axes[at], axis)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Mixed over the normalised axes, then scaled and shifted; a function of each unit's own vector elsewhere."""
        affine = op.args.get("bias") is not None
        x, over = op.args["input"], self._over(op)
        marks, axes = s.of(x), s.axes(x)
        mixing = mixed(op, s, axes[-over:], op.args.get("weight"), self._epsilon(op))
        outside = [[s.forget_index(state, axes[-over:]) for state in states] for states in marks[:-over]]
        out = each(op, s, outside, odd=not affine, zero=not affine, unsafe=True)
        for k in range(len(axes) - over, len(axes)):
            row = [s.mix(op, state, mixing) for state in marks[k]]
            for name, combine in (("weight", s.mul), ("bias", s.add)):
                value = op.args.get(name)
                if value is not None:
                    entries = s.of(value)[k - len(axes)]
                    row = [combine(op, pair) for pair in zip(row, entries, strict=True)]
            out.append(row)
        s.set(op.outputs[0], out)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """The normalised shape."""
        return {"normalized_shape": list(z.shape(op.args["input"])[-self._over(op) :])}


def mixed(
    op: Op,
    s: StateContext,
    axes: list[Axis],
    scale: Value | None = None,
    epsilon: float | None = None,
    *,
    kind: str = "",
    correction: float = 0,
    order: float = 2,
    gain: Value | None = None,
) -> Mixing:
    """What a normalisation or a statistic over some axes sees of a growth."""
    old = new = 1
    even = True
    for axis in axes:
        before, after = s.grown(axis)
        old, new = old * before, new * after
        even = even and _evenly(s, s.algebra.resolve(axis))
    growing = tuple(atom for axis in axes for atom in atoms(s.algebra.resolve(axis)) if s.count(atom))
    even = even and all(b % a == 0 for a, b in map(s.grown, growing))
    alone = len(axes) == 1 and s.algebra.resolve(axes[0]) == (growing or (None,))[0]
    name = kind or op.name.removeprefix("aten::").removeprefix("_")
    paired = prod(s.algebra.measure(atom) for atom in dict.fromkeys(growing))
    return Mixing(name, old, new, alone, even, growing, scale, epsilon, correction, order, gain, paired)


def _evenly(s: StateContext, axis: Axis) -> bool:
    """Whether all parts of every sum in an axis grow by one factor."""
    if isinstance(axis, Product):
        return all(_evenly(s, factor) for factor in axis.factors)
    before, after = s.grown(axis)
    parts = [(term, *s.grown(term)) for term in (axis.terms if isinstance(axis, Sum) else ())]
    return all(b * before == a * after and _evenly(s, term) for term, a, b in parts)


def each(op: Op, s: StateContext, marks: AxisStates, *, unsafe: bool = False, **how: bool) -> AxisStates:
    """States after a function of each new unit's own slice; `how`: what `StateContext.map_units` is to know of it."""
    out: AxisStates = []
    for states in marks:
        row = [s.require(op, y, even=False, why="it is normalised") for y in states] if unsafe else states
        out.append([s.map_units(op, [y], **how) for y in row])
    return out


register(PerChannel(), "batch_norm", "instance_norm")
register(GroupNorm(), "group_norm")
register(WholeAxis(), "layer_norm", "rms_norm")
