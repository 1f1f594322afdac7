"""Sampling at positions that another tensor gives: grid_sample, max_unpool and affine_grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, SameSizes, SizeContext, StateContext, register

UNREAD = {("affine_grid_generator", "size"): frozenset({1})}
"""Entries of arguments that do not affect the result, by (operator, argument): affine_grid takes all sizes of an image,
but does not use the number of channels."""


class GridSample(SameSizes):
    """grid_sample in two or three dimensions: each channel is sampled separately at the positions of a grid.

    The result is linear in the input, with weights that depend on the grid.
    """

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The result has the channels of the input and the spatial axes of the grid; both share the batch axis."""
        axes, grid = d.of(op.args["input"]), d.of(op.args["grid"])
        for axis in axes[2:]:
            d.freeze(axis, Kind.WINDOW, "it is sampled at the positions of a grid")
        d.freeze(grid[-1], Kind.INDEX, "it holds the coordinates of a position")
        d.set(op.outputs[0], [d.unify(axes[0], grid[0]), axes[1], *grid[1:-1]])

    def states(self, op: Op, s: StateContext) -> None:
        """The result is linear in each channel; along axes of the grid it is an arbitrary function of the grid."""
        x, space = s.axes(op.args["input"]), slice(2, None)
        rows = [[s.forget_index(state, x[space]) for state in row] for row in s.of(op.args["input"])]
        coordinates = s.axes(op.args["grid"])[-1:]
        grid = [
            [s.map_units(op, [s.forget_index(state, coordinates)], odd=False, zero=False) for state in row]
            for row in s.of(op.args["grid"])
        ]
        samples = [s.mul(op, pair) for pair in zip(rows[0], grid[0], strict=True)]
        channels = [s.map_units(op, [state], odd=True, zero=True, linear=True) for state in rows[1]]
        s.set(op.outputs[0], [samples, channels, *grid[1:-1]])


class Unpool(SameSizes):
    """max_unpool: the values of each channel are placed at the positions that the indices give, and zeros elsewhere."""

    by_index = True

    def __init__(self, over: int) -> None:
        """`over`: number of spatial axes, which come last."""
        self.over = over

    def dims(self, op: Op, d: AxisContext) -> None:
        """Values and indices share their axes; spatial axes may not grow."""
        out = op.outputs[0]
        axes, places = d.of(op.args["self"]), d.of(op.args["indices"])
        for axis in (*axes[-self.over :], *places[-self.over :]):
            d.freeze(axis, Kind.WINDOW, "its units are placed by indices")
        shared = [d.unify(axis, other) for axis, other in zip(axes, places, strict=True)]
        d.set(out, [*shared[: -self.over], *(Fixed(n) for n in out.shape[-self.over :])])

    def states(self, op: Op, s: StateContext) -> None:
        """The states of a product of the values and a function of the indices."""
        over = s.axes(op.args["self"])[-self.over :]
        values, places = (
            [[s.forget_index(state, over) for state in row] for row in s.of(op.args[name])[: -self.over]]
            for name in ("self", "indices")
        )
        rows = [
            [s.mul(op, (x, s.map_units(op, [at], odd=False, zero=False))) for x, at in zip(*sides, strict=True)]
            for sides in zip(values, places, strict=True)
        ]
        s.set(op.outputs[0], [*rows, *([] for _ in range(self.over))])


class AffineGrid:
    """affine_grid: a grid for each map in a batch of affine maps, with the size of an image as argument."""

    by_index = True

    def dims(self, op: Op, d: AxisContext) -> None:
        """The result has the batch axis of the maps; the entries of a map may not grow."""
        maps, rows, columns = d.of(op.args["theta"])
        for axis in (rows, columns):
            d.freeze(axis, Kind.INDEX, "it holds the entries of an affine map")
        grid: list[Axis] = [Fixed(n) for n in op.outputs[0].shape[1:]]
        d.set(op.outputs[0], [maps, *grid])

    def states(self, op: Op, s: StateContext) -> None:
        """The result is a linear function of each map."""
        entries = s.axes(op.args["theta"])[1:]
        maps = [s.forget_index(state, entries) for state in s.of(op.args["theta"])[0]]
        row = [s.map_units(op, [state], odd=True, zero=True, linear=True) for state in maps]
        s.set(op.outputs[0], [row, *([] for _ in op.outputs[0].shape[1:])])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the size, whose first entry is the number of maps."""
        return {"size": [z.shape(op.outputs[0])[0], *op.args["size"][1:]]}


register(GridSample(), "grid_sampler")
register(Unpool(2), "max_unpool2d")
register(Unpool(3), "max_unpool3d")
register(AffineGrid(), "affine_grid_generator")
