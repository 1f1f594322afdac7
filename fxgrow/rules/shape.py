"""Operators that rearrange axes without arithmetic: view, permute, squeeze and expand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Atom, Axis, Fixed, Sum, product
from ..errors import Kind
from .base import (
    AxisContext,
    AxisStates,
    SameSizes,
    SizeContext,
    State,
    StateContext,
    normal,
    normal_dims,
    register,
    regroup,
)

Groups = list[tuple[list[int], list[int]]]


def group(before: Sequence[int], after: Sequence[int]) -> Groups:
    """Group the dimensions of a view: (dimensions before, dimensions after) with equal numbers of entries, as small as
    possible."""
    groups: Groups = []
    i = j = 0
    while i < len(before) and j < len(after):
        left, right, a, b = [i], [j], before[i], after[j]
        while a != b:
            if a < b:
                i += 1
                left.append(i)
                a *= before[i]
            else:
                j += 1
                right.append(j)
                b *= after[j]
        i, j = i + 1, j + 1
        groups.append((left, right))
    if not groups:
        groups.append(([], []))
    groups[-1][0].extend(range(i, len(before)))  # trailing dimensions of size 1
    groups[-1][1].extend(range(j, len(after)))
    return groups


class View:
    """view, reshape, flatten, unflatten: axes are merged into products and split again, in row-major order.

    Args:
        sizes: name of the argument that holds the new sizes, if any.
        at: name of the argument with the dimension at which the new sizes start, if any.
        like: name of the argument from which the shape is taken, if any.
    """

    by_index = True

    def __init__(self, sizes: str = "", at: str = "", like: str = "") -> None:
        self.sizes, self.at, self.like = sizes, at, like

    def dims(self, op: Op, d: AxisContext) -> None:
        """Each group of axes (see `group`) is merged into a product and split into the axes of the result."""
        x, out = op.args["self"], op.outputs[0]
        axes = d.of(x)
        result: list[Axis] = [Fixed(n) for n in out.shape]
        if "dtype" in op.args:
            for axis in axes:
                d.freeze(axis, Kind.UNKNOWN_OP, "its data are viewed as another dtype")
        elif 0 not in x.shape:
            for left, right in group(x.shape, out.shape):
                if len(left) == len(right) == 1:
                    result[right[0]] = axes[left[0]]
                    continue
                whole = product([d.algebra.resolve(axes[k]) for k in left])
                if not right:
                    d.freeze(whole, Kind.FIXED, "a view removes it")
                    continue
                sizes = [out.shape[k] for k in right]
                parts = d.algebra.counted(whole, sizes) if len(left) == 1 else None
                for k, part in zip(right, parts or d.algebra.split(whole, sizes), strict=True):
                    result[k] = part
        d.set(out, alike(d, result, op.args[self.like]) if self.like else result)

    def states(self, op: Op, s: StateContext) -> None:
        """Units keep their order, so the states are those of the operand in the same order."""
        x, out = op.args["self"], op.outputs[0]
        rows, before, axes = s.of(x), s.axes(x), s.axes(out)
        result: AxisStates = [[] for _ in out.shape]
        for left, right in group(x.shape, out.shape):
            row, parts = [state for k in left for state in rows[k]], [axes[k] for k in right]
            if len(left) != 1 or len(right) != 1:
                row = s.merge_axes([before[k] for k in left], [rows[k] for k in left])
            told = self._told(op, s, before[left[0]], row, parts) if len(left) == 1 else None
            for k, some in zip(right, told or s.split_axes(row, parts) or regroup(s, op, row, parts), strict=True):
                result[k] = some
        s.set(out, result)

    def _told(self, op: Op, s: StateContext, axis: Axis, row: list[State], parts: list[Axis]) -> AxisStates | None:
        """Return states that differ along the first part, which counts the terms of a concatenation; None for other
        views."""
        if not (isinstance(axis, Sum) and parts and isinstance(parts[0], Atom) and len(parts) > 1):
            return None
        count, each = len(axis.terms), len(row) // len(axis.terms)
        if s.algebra.measure(parts[0]) != count or not row or each != sum(map(s.count, parts)):
            return None
        some = [s.by_index(op, parts[0], row[k::each]) for k in range(each)]
        return [[], *regroup(s, op, some, parts[1:])]

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the new sizes, if the call has them."""
        old = op.args.get(self.sizes)
        if old is None:
            return {}
        shape = z.shape(op.outputs[0])
        first = normal(op.args[self.at], len(op.args["self"].shape)) if self.at else 0
        return {self.sizes: [n if n == -1 else shape[first + k] for k, n in enumerate(old)]}


def alike(d: AxisContext, axes: list[Axis], like: Value) -> list[Axis]:
    """Unify the axes of a result with those of the tensor from which its shape is taken, and return them."""
    return [d.unify(axis, other) for axis, other in zip(axes, d.of(like), strict=True)]


class Permute(SameSizes):
    """permute, transpose, movedim, t and others: axes are reordered."""

    by_index = True

    def _order(self, op: Op) -> list[int]:
        rank = len(op.args["self"].shape)
        order = list(range(rank))
        args = op.args
        if "dims" in args:
            return normal_dims(args["dims"], rank)
        if "source" in args:
            source, to = normal_dims(args["source"], rank), normal_dims(args["destination"], rank)
            rest = iter(k for k in order if k not in source)
            return [source[to.index(k)] if k in to else next(rest) for k in order]
        names = next((pair for pair in (("dim0", "dim1"), ("axis0", "axis1")) if pair[0] in args), None)
        if names is not None:
            a, b = (normal(args[n], rank) for n in names)
            order[a], order[b] = order[b], order[a]
            return order
        if op.name == "aten::mT":
            return [*order[:-2], order[-1], order[-2]]
        return order[::-1]  # t, numpy_T

    def dims(self, op: Op, d: AxisContext) -> None:
        """The axes of the result are those of the operand in another order."""
        axes = d.of(op.args["self"])
        d.set(op.outputs[0], [axes[k] for k in self._order(op)])

    def states(self, op: Op, s: StateContext) -> None:
        """The states are those of the operand in the new order of axes."""
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], [rows[k] for k in self._order(op)])


class Squeeze(SameSizes):
    """squeeze and unsqueeze: axes of size 1 are removed or added."""

    by_index = True

    def _kept(self, op: Op) -> list[int | None]:
        """Return for each axis of the result the axis of the operand, or None for a new one."""
        x = op.args["self"]
        rank = len(x.shape)
        if op.name == "aten::unsqueeze":
            kept: list[int | None] = list(range(rank))
            kept.insert(normal(op.args["dim"], rank + 1), None)
            return kept
        dims = normal_dims(op.args.get("dim"), rank)
        return [k for k in range(rank) if not (k in dims and x.shape[k] == 1)]

    def dims(self, op: Op, d: AxisContext) -> None:
        """An axis that is squeezed may not grow, because its size must stay 1."""
        axes = d.of(op.args["self"])
        kept = self._kept(op)
        for k, axis in enumerate(axes):
            if k not in kept:
                d.freeze(axis, Kind.FIXED, "an axis of size 1 is squeezed away")
        d.set(op.outputs[0], [Fixed(1) if k is None else axes[k] for k in kept])

    def states(self, op: Op, s: StateContext) -> None:
        """The states are those of the operand; new axes have none."""
        rows = s.of(op.args["self"])
        s.set(op.outputs[0], [[] if k is None else rows[k] for k in self._kept(op)])


class Expand:
    """expand, expand_as, broadcast_to: axes of size 1 are repeated.

    Args:
        sizes: name of the argument that holds the new sizes, if any.
        like: name of the argument from which the shape is taken, if any.
    """

    by_index = True

    def __init__(self, sizes: str = "", like: str = "") -> None:
        self.sizes, self.like = sizes, like

    def dims(self, op: Op, d: AxisContext) -> None:
        """A repeated axis is a new atom, whose size may change as consumers require."""
        x, out = op.args["self"], op.outputs[0]
        axes: list[Axis] = []
        old = d.of(x)
        for k, n in enumerate(out.shape, len(old) - len(out.shape)):
            if k >= 0 and x.shape[k] == n:
                axes.append(old[k])
                continue
            if k >= 0:
                d.freeze(old[k], Kind.BROADCAST, "its size 1 is broadcast to a larger size")
            axes.append(Fixed(n) if n == 1 else d.algebra.atom(n))
        d.set(out, alike(d, axes, op.args[self.like]) if self.like else axes)

    def states(self, op: Op, s: StateContext) -> None:
        """All units of a repeated axis are the same."""
        rows = s.of(op.args["self"])
        out = s.axes(op.outputs[0])
        result: AxisStates = []
        for k, axis in enumerate(out, len(rows) - len(out)):
            kept = k >= 0 and len(rows[k]) == s.count(axis)
            result.append(rows[k] if kept else [s.same] * s.count(axis))
        s.set(op.outputs[0], result)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the new sizes, if the call has them."""
        sizes = op.args.get(self.sizes)
        if not isinstance(sizes, list | tuple):
            return {}
        shape = z.shape(op.outputs[0])
        return {self.sizes: [n if n == -1 else m for n, m in zip(sizes, shape, strict=True)]}


register(View("size"), "view", "_unsafe_view")
register(View("shape"), "reshape")
register(View(), "flatten", "ravel")
register(View(like="other"), "view_as", "reshape_as")
register(View("sizes", "dim"), "unflatten")
register(Permute(), "permute", "transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "movedim", "moveaxis")
register(Squeeze(), "squeeze", "unsqueeze")
register(Expand("size"), "expand", "broadcast_to")
register(Expand(like="other"), "expand_as")
