"""The rule of `fxgrow.functional.adapt_skip`, the adapter that fxgrow inserts into skip paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op
from .base import AxisContext, SizeContext, StateContext, normal, register


class AdaptSkip:
    """fxgrow::adapt_skip: the channels of the input and of the result are independent, so that each may grow alone."""

    by_index = False

    def dims(self, op: Op, d: AxisContext) -> None:
        """The channel axis of the result is a new atom; all other axes are those of the input."""
        axes = d.of(op.args["x"])
        at = normal(op.args["dim"], len(axes))
        axes[at] = d.algebra.atom(op.args["width"])
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """New channels of the input cancel in pairs or are dropped; channels that are added are zeros or copies."""
        rows = s.of(op.args["x"])
        at = normal(op.args["dim"], len(rows))
        for state in rows[at]:
            s.adapt(op, state)
        rows[at] = [s.missing(op, s.same)] * s.count(s.axes(op.outputs[0])[at])
        s.set(op.outputs[0], rows)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the blocks of paired channels, the width, and the channels that are copies."""
        x, out = op.args["x"], op.outputs[0]
        at = normal(op.args["dim"], len(x.shape))
        new: dict[str, Any] = {"width": z.shape(out)[at]}
        grown = (z.shape(x)[at] - x.shape[at]) // 2
        if grown and z.paired(op):
            new["pairs"] = (*op.args["pairs"], (x.shape[at], grown))
        source = z.copied(op, z.axes(out)[at])
        if source:
            new["copies"] = (*op.args.get("copies", ()), *enumerate(source, out.shape[at]))
        return new


register(AdaptSkip(), "fxgrow::adapt_skip")
