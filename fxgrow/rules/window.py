"""Pooling, interpolation, padding, dropout, and shuffles of pixels and channels."""

from __future__ import annotations

from ..capture.program.program import Op
from ..dims.axis import Axis, Fixed, product, total
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, StateContext, register
from .norm import each
from .pointwise import drawn


class Window(SameSizes):
    """Pooling and interpolation: an operator with windows over the last axes, applied to every channel separately.

    Args:
        over: number of axes of the windows.
        linear: the result is a weighted mean, so that opposite units stay opposite, unlike max pooling.
        zero: the result is zero for zeros.
        homogeneous: the result is multiplied by c > 0 if the operand is.
    """

    by_index = True

    def __init__(self, over: int, *, linear: bool, zero: bool = True, homogeneous: bool = False) -> None:
        self.over, self.linear, self.zero, self.homogeneous = over, linear, zero, homogeneous

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axes of the windows may not grow, even if they keep their sizes; the others are those of the input."""
        axes = d.of(next(op.inputs()))
        for axis in axes[-self.over :]:
            d.freeze(axis, Kind.WINDOW, "a window runs over it")
        for out in op.outputs:
            d.set(out, [*axes[: -self.over], *(Fixed(n) for n in out.shape[-self.over :])])

    def states(self, op: Op, s: StateContext) -> None:
        """The result is a function of each unit's own slice; indices of maxima are neither odd nor zero."""
        x = next(op.inputs())
        over = s.axes(x)[-self.over :]
        planes = [[s.forget_index(state, over) for state in states] for states in s.of(x)]
        for out in op.outputs:
            number = out.dtype.is_floating_point
            rows = each(
                op,
                s,
                planes,
                odd=self.linear and number,
                zero=self.zero and number,
                linear=self.linear,
                homogeneous=self.homogeneous and number,
            )
            s.set(out, [*rows[: -self.over], *([] for _ in range(self.over))])


class Pad(SameSizes):
    """pad: an axis that is padded with constants may grow; one that is padded otherwise, or cropped, may not."""

    by_index = True

    def __init__(self, *, constant: bool) -> None:
        self.constant = constant

    def _amounts(self, op: Op) -> dict[int, tuple[int, int]]:
        pad = op.args["pad"] if "pad" in op.args else op.args["padding"]
        rank = len(op.outputs[0].shape)
        return {rank - 1 - i: (pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)}

    def dims(self, op: Op, d: AxisContext) -> None:
        """An axis that is padded with constants is a concatenation with fixed numbers of units."""
        axes = d.of(op.args["self"])
        plain = self.constant and op.args.get("mode") in (None, "constant")
        for at, (low, high) in self._amounts(op).items():
            if low == high == 0:
                continue
            if plain and low >= 0 and high >= 0:
                parts: list[Axis] = [Fixed(low), axes[at], Fixed(high)]
                axes[at] = total([d.algebra.resolve(p) for p in parts])
            else:
                d.freeze(axes[at], Kind.WINDOW, "it is padded with its own units, or cropped")
                axes[at] = Fixed(op.outputs[0].shape[at])
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Along other axes new units are padded like old ones."""
        value, axes = op.args.get("value"), s.axes(op.args["self"])
        padded = [axes[at] for at, amounts in self._amounts(op).items() if any(amounts)]
        rows = [[s.forget_index(state, padded) for state in states] for states in s.of(op.args["self"])]
        s.set(op.outputs[0], each(op, s, rows, odd=not value, zero=not value, linear=not value))


class Dropout(SameSizes):
    """dropout: the identity in evaluation mode, and a product with a random mask in training mode."""

    by_index = True

    def __init__(self, *, shifts: bool = False) -> None:
        """`shifts`: dropped units are not set to zero, and all units are shifted, as in alpha dropout."""
        self.shifts = shifts

    def dims(self, op: Op, d: AxisContext) -> None:
        """All results have the axes of the input."""
        for out in op.outputs:  # native_dropout returns its mask too
            d.set(out, d.of(next(op.inputs())))  # "input", in place "self"

    def states(self, op: Op, s: StateContext) -> None:
        """The states of the input in a mode without random numbers, and otherwise those of a random product."""
        rows: AxisStates = s.of(next(op.inputs()))
        rows = drawn(op, s, rows, DROPS)
        if self.shifts and op.draws[0]:
            rows = [[s.add(op, [x, s.drawn(op, s.same, DROPS)]) for x in row] for row in rows]
        s.set(op.outputs[0], rows)
        for mask in op.outputs[1:]:
            s.set(mask, [[s.same] * len(row) for row in rows])


class PixelShuffle(SameSizes):
    """pixel_shuffle: (c r r) h w -> c (h r) (w r)."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """The last factor of the channels becomes spatial axes, and may not grow."""
        axes, factor = d.of(op.args["self"]), op.args["upscale_factor"] ** 2
        channels, square = d.algebra.split(axes[-3], (op.args["self"].shape[-3] // factor, factor))
        for axis in (square, *axes[-2:]):
            d.freeze(axis, Kind.WINDOW, "it becomes a spatial axis")
        d.set(op.outputs[0], [*axes[:-3], channels, *(Fixed(n) for n in op.outputs[0].shape[-2:])])

    def states(self, op: Op, s: StateContext) -> None:
        """The states of the channels are those of the operand."""
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], [*rows[:-2], [], []])


class PixelUnshuffle(SameSizes):
    """pixel_unshuffle: c (h r) (w r) -> (c r r) h w."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Spatial axes become the last factor of the channels, and may not grow."""
        axes = d.of(op.args["self"])
        for axis in axes[-2:]:
            d.freeze(axis, Kind.WINDOW, "it becomes part of the channels")
        square = Fixed(op.args["downscale_factor"] ** 2)
        from_space: list[Axis] = [Fixed(n) for n in op.outputs[0].shape[-2:]]
        channels = d.algebra.resolve(product([axes[-3], square]))
        d.set(op.outputs[0], [*axes[:-3], channels, *from_space])

    def states(self, op: Op, s: StateContext) -> None:
        """The states of the channels are those of the operand."""
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], [*rows[:-2], [], []])


class ChannelShuffle(SameSizes):
    """channel_shuffle: (g c) -> (c g) along axis 1."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """The two factors of axis 1 are transposed; the number of groups may not grow."""
        x = op.args["self"]
        axes = d.of(x)
        groups = op.args["groups"]
        g, c = d.algebra.split(axes[1], (groups, x.shape[1] // groups))
        d.freeze(g, Kind.WINDOW, "a channel shuffle has a fixed number of groups")
        axes[1] = product([c, g])
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Only the inner factor grows, so its states keep their order."""
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], rows)


for _rank in (1, 2, 3):
    register(Window(_rank, linear=True), f"avg_pool{_rank}d", f"adaptive_avg_pool{_rank}d")
    register(Window(_rank, linear=False, homogeneous=True), f"max_pool{_rank}d", f"adaptive_max_pool{_rank}d")
    register(Window(_rank, linear=False, homogeneous=True), f"max_pool{_rank}d_with_indices")
    register(Window(_rank, linear=True), f"upsample_nearest{_rank}d", f"_upsample_nearest_exact{_rank}d")
    register(Pad(constant=False), f"reflection_pad{_rank}d", f"replication_pad{_rank}d")
register(Window(1, linear=True), "upsample_linear1d")
register(Window(2, linear=True), "upsample_bilinear2d", "upsample_bicubic2d")
register(Window(2, linear=True), "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
register(Window(3, linear=True), "upsample_trilinear3d")
register(Pad(constant=True), "pad", "constant_pad_nd")
DROPS = "dropout draws a mask entry for every unit"
register(Dropout(), "dropout", "feature_dropout", "native_dropout")
register(Dropout(shifts=True), "alpha_dropout", "feature_alpha_dropout")
register(PixelShuffle(), "pixel_shuffle")
register(PixelUnshuffle(), "pixel_unshuffle")
register(ChannelShuffle(), "channel_shuffle", "native_channel_shuffle")
