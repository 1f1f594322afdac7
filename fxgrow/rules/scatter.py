"""Writes as functions: copy, and the replacement of a slice, a unit or indexed entries of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..capture.program.program import Op, Value
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, normal, register, regroup
from .pointwise import aligned, meet, operands
from .slicing import STRIDE, Range


class Copy(SameSizes):
    """copy: the second operand, broadcast to the shape of the first and converted to its dtype."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes."""
        d.set(op.outputs[0], meet(op, d, operands(op)))

    def states(self, op: Op, s: StateContext) -> None:
        """The states of the second operand after a pointwise function, the conversion of the dtype."""
        dtype = op.outputs[0].dtype
        odd = dtype.is_signed and dtype is not torch.bool
        linear = odd and (dtype.is_floating_point or dtype.is_complex)
        rows = [sides[-1] for sides in aligned(op, s, operands(op))]
        out: AxisStates = [[s.map_units(op, [x], odd=odd, zero=True, linear=linear) for x in row] for row in rows]
        s.set(op.outputs[0], out)


class SliceScatter:
    """slice_scatter: a slice of an axis is replaced, so that the result is a concatenation of the units before it, the
    new slice, and the units after it."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The new slice has the axes of the old one."""
        axes, part, cut = d.of(op.args["self"]), d.of(op.args["src"]), Range(op, op.args["src"])
        for k, axis in enumerate(part):
            if k == cut.at and cut.strided:
                for side in (axes[k], axis):
                    d.freeze(side, Kind.INDEX, STRIDE)
            else:
                d.unify(axes[k] if k != cut.at or cut.whole else cut.cut(d, axes[k])[1], axis)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """States are concatenated along the axis, without those of the old slice, and merged along the others."""
        x, part, cut = s.of(op.args["self"]), s.of(op.args["src"]), Range(op, op.args["src"])
        if cut.whole and not cut.strided:
            s.set(op.outputs[0], part)
            return
        out: AxisStates = []
        for k, (old, new) in enumerate(zip(x, part, strict=True)):
            if k != cut.at:
                out.append([s.merge(op, pair) for pair in zip(old, new, strict=True)])
            elif not old:
                out.append([])
            else:
                before, _, after = regroup(s, op, old, cut.cut(s, s.axes(op.args["self"])[k]))
                out.append([*before, *new, *after])
        s.set(op.outputs[0], out)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the start and the end of the slice after the growth."""
        return Range(op, op.args["src"]).resized(z)


class SelectScatter(SameSizes):
    """select_scatter: one unit of an axis is replaced."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axis of the unit may not grow; the new unit has the other axes."""
        axes, part = d.of(op.args["self"]), d.of(op.args["src"])
        at = normal(op.args["dim"], len(axes))
        d.freeze(axes[at], Kind.INDEX, "one of its units is replaced by index")
        for axis, other in zip(axes[:at] + axes[at + 1 :], part, strict=True):
            d.unify(axis, other)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The states of both operands are merged along all other axes."""
        x, part = s.of(op.args["self"]), s.of(op.args["src"])
        at = normal(op.args["dim"], len(x))
        rest = x[:at] + x[at + 1 :]
        if op.args["self"].shape[at] > 1:
            part = [
                [s.merge(op, pair) for pair in zip(old, new, strict=True)] for old, new in zip(rest, part, strict=True)
            ]
        s.set(op.outputs[0], [*part[:at], [], *part[at:]])


class IndexPut(SameSizes):
    """index_put: entries that a mask or indices select are replaced.

    With one mask and one number, as in `x[mask] = 0.0`, the result is a pointwise function of the tensor and the mask.
    In all other cases no axis may grow.
    """

    by_index = True

    def _mask(self, op: Op) -> tuple[int, Value] | None:
        """Return the mask and the axis at which it starts, if there are only one mask and one number."""
        some = [(k, index) for k, index in enumerate(op.args["indices"]) if index is not None]
        lone = len(some) == 1 and some[0][1].dtype is torch.bool and op.args["values"].shape == ()
        return some[0] if lone else None

    def dims(self, op: Op, d: AxisContext) -> None:
        """The mask shares the axes of the entries that it selects; otherwise no axis may grow."""
        axes, found = d.of(op.args["self"]), self._mask(op)
        if found is None:
            for axis in (axis for value in op.inputs() for axis in d.of(value)):
                d.freeze(axis, Kind.INDEX, "entries are replaced by index")
        else:
            start, mask = found
            for k, axis in enumerate(d.of(mask), start):
                axes[k] = d.unify(axes[k], axis)
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a pointwise function of the tensor and the mask."""
        found, out = self._mask(op), s.of(op.args["self"])
        if found is not None:
            start, mask = found
            masks = [*([] for _ in range(start)), *s.of(mask), *([] for _ in out)]
            for k, sides in enumerate(zip(out, masks, strict=False)):
                width = max(map(len, sides))
                leaves = zip(*(side if len(side) == width else [s.same] * width for side in sides), strict=True)
                out[k] = [s.map_units(op, leaf, odd=False, zero=False) for leaf in leaves]
        s.set(op.outputs[0], out)


register(Copy(), "copy")
register(IndexPut(), "index_put")
register(SliceScatter(), "slice_scatter")
register(SelectScatter(), "select_scatter")
