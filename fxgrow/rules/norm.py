"""Normalisation layers: batch, instance, group, layer and RMS norm."""

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
    """batch_norm and instance_norm: every channel (axis 1) is normalised with its own statistics.

    Equal channels with equal statistics and affine parameters stay equal, in training mode too. Opposite ones need
    opposite biases. Zeros would be divided by √ε alone. Split units (shares of an old unit) are not possible: in
    training mode epsilon has more weight in a share than in the whole.
    """

    by_index = True
    vectors = ("weight", "bias", "running_mean", "running_var")

    def _over(self, op: Op) -> list[int]:
        """Return the axes over which statistics are taken if no running statistics are kept, as in weight
        standardisation."""
        if any(op.args.get(name) is not None for name in ("running_mean", "running_var")):
            return []
        rank = len(op.args["input"].shape)
        if op.args.get("training"):
            return [0, *range(2, rank)]
        return list(range(2, rank)) if op.args.get("use_input_stats") else []

    def dims(self, op: Op, d: AxisContext) -> None:
        """Affine parameters and running statistics have the channel axis; the other axes may not grow, except in a new
        block."""
        axes, over = d.of(op.args["input"]), self._over(op)
        for vector in (op.args[name] for name in self.vectors if op.args.get(name) is not None):
            axes[1] = d.unify(axes[1], d.of(vector)[0])
        alone = op.name == "aten::instance_norm" and prod(op.args["input"].shape[2:]) <= TWINS
        held = [0] if d.fresh and not alone else [k for k in range(len(axes)) if k != 1 and (d.fresh or k not in over)]
        for k in held:
            d.freeze(axes[k], Kind.NORM, _TAKEN.format("a normalisation"))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a difference, a quotient, a product and a sum, in the order in which they are computed."""
        rows, axes = s.of(op.args["input"]), s.axes(op.args["input"])
        out = [s.forget_index(x, axes[:1] + axes[2:]) for x in rows[1]]
        out = [s.require(op, x, even=False, why="it is divided by its own standard deviation") for x in out]
        out = [s.map_units(op, [x], odd=True, zero=True) for x in out]
        for name, combine in (("running_mean", s.add), ("running_var", s.mul), ("weight", s.mul), ("bias", s.add)):
            if op.args.get(name) is None:
                continue
            some = s.of(op.args[name])[0]
            if name == "running_var":
                some = [s.require(op, state, even=True, why="paired units need equal variances") for state in some]
            out = [combine(op, pair) for pair in zip(out, some, strict=True)]
        rest = [rows[0], *rows[2:]]
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
    """group_norm: channels are (g c), and whole groups may be added, but no channels to a group.

    With a single group all channels may be copied equally often. In a new block, where all channels are new, a group
    may consist of pairs of equal channels, which have equal statistics.
    """

    by_index = True

    def _split(self, d: AxisContext | StateContext | SizeContext, op: Op, axis: Axis, size: int) -> list[Axis]:
        return d.algebra.split(axis, (op.args["num_groups"], size // op.args["num_groups"]), (id(op), "groups"))

    def dims(self, op: Op, d: AxisContext) -> None:
        """Axes over which the statistics of a group are taken may not grow, with the exceptions above."""
        x = op.args["input"]
        axes = d.of(x)
        for name in ("weight", "bias"):
            if op.args[name] is not None:
                axes[1] = d.unify(axes[1], d.of(op.args[name])[0])
        _, channels = self._split(d, op, axes[1], x.shape[1])
        degenerate = prod(x.shape[1:]) <= TWINS * op.args["num_groups"]
        held = axes[2:] if op.args["num_groups"] == 1 else [channels, *axes[2:]]  # copies may extend a single group
        if d.fresh and degenerate:
            d.freeze(channels, Kind.NORM, "the group norm of two equal values is zero")
        for axis in [] if d.fresh and not degenerate else held:
            d.freeze(axis, Kind.NORM, _TAKEN.format("a group norm"))
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Paired groups have equal statistics, as have paired channels within a group."""
        x = op.args["input"]
        _, channels = self._split(s, op, s.axes(x)[1], x.shape[1])
        over = [channels, *s.axes(x)[2:]]
        rows = [[s.forget_index(y, over) for y in states] for states in s.of(x)]
        if op.args["num_groups"] == 1:
            mixing = mixed(op, s, s.axes(x)[1:], op.args["weight"], kind="group_norm")
            row = [s.mix(op, y, mixing) for y in rows[1]]
        else:
            row = [s.require(op, y, even=True, why="paired units need equal statistics") for y in rows[1]]
            row = [s.map_units(op, [y], odd=False, zero=False) for y in row]
        for name, combine in (("weight", s.mul), ("bias", s.add)):
            if op.args[name] is not None:
                row = [combine(op, pair) for pair in zip(row, s.of(op.args[name])[0], strict=True)]
        affine = op.args["bias"] is not None
        out = each(op, s, rows, odd=not affine, zero=not affine, unsafe=True)
        s.set(op.outputs[0], [out[0], row, *out[2:]])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the number of groups, which is the size of an axis."""
        x = op.args["input"]
        return {"num_groups": z.size(self._split(z, op, z.axes(x)[1], x.shape[1])[0])}


class WholeAxis:
    """layer_norm and rms_norm: every unit of the result depends on all units of the normalised axes."""

    by_index = True

    def _over(self, op: Op) -> int:
        return len(op.args["normalized_shape"])

    def _epsilon(self, op: Op) -> float:
        """Return epsilon; the default of rms_norm is that of the dtype in which torch computes it."""
        double = op.args["input"].dtype is torch.float64
        default = torch.finfo(torch.float64 if double else torch.float32).eps
        return default if op.args.get("eps") is None else float(op.args["eps"])

    def dims(self, op: Op, d: AxisContext) -> None:
        """The weight and the bias have the normalised axes. Growing these is possible with some states only."""
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
        """Normalised axes are mixed, scaled and shifted; along other axes the result is a function of each vector."""
        affine = op.args.get("bias") is not None
        x, over = op.args["input"], self._over(op)
        rows, axes = s.of(x), s.axes(x)
        mixing = mixed(op, s, axes[-over:], op.args.get("weight"), self._epsilon(op))
        outside = [[s.forget_index(state, axes[-over:]) for state in states] for states in rows[:-over]]
        out = each(op, s, outside, odd=not affine, zero=not affine, unsafe=True)
        for k in range(len(axes) - over, len(axes)):
            row = [s.mix(op, state, mixing) for state in rows[k]]
            for name, combine in (("weight", s.mul), ("bias", s.add)):
                value = op.args.get(name)
                if value is not None:
                    entries = s.of(value)[k - len(axes)]
                    row = [combine(op, pair) for pair in zip(row, entries, strict=True)]
            out.append(row)
        s.set(op.outputs[0], out)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the normalised shape."""
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
    """Describe a normalisation or a statistic over some axes for `StateContext.mix`; see `Mixing` for the arguments."""
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
    """Return whether all terms of every sum in an axis grow by the same factor."""
    if isinstance(axis, Product):
        return all(_evenly(s, factor) for factor in axis.factors)
    before, after = s.grown(axis)
    parts = [(term, *s.grown(term)) for term in (axis.terms if isinstance(axis, Sum) else ())]
    return all(b * before == a * after and _evenly(s, term) for term, a, b in parts)


def each(op: Op, s: StateContext, rows: AxisStates, *, unsafe: bool = False, **how: bool) -> AxisStates:
    """Return the states after a function that is applied to the slice of each unit.

    Args:
        op: the operator.
        s: the states.
        rows: the states of the operand.
        unsafe: whether the function is not defined at zero, because it normalises.
        how: keyword arguments of `StateContext.map_units`.
    """
    out: AxisStates = []
    for states in rows:
        row = [s.require(op, y, even=False, why="it is normalised") for y in states] if unsafe else states
        out.append([s.map_units(op, [y], **how) for y in row])
    return out


register(PerChannel(), "batch_norm", "instance_norm")
register(GroupNorm(), "group_norm")
register(WholeAxis(), "layer_norm", "rms_norm")
