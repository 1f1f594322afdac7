"""Embeddings, indexing and gathering, and functions that create tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, normal, register


class Embedding(SameSizes):
    """embedding: looks up rows of a table; the columns of the table are the channels of the result."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """Rows are looked up by index and may not grow; columns may."""
        rows, columns = d.of(op.args["weight"])
        d.freeze(rows, Kind.INDEX, "its units are looked up by index")
        d.set(op.outputs[0], [*d.of(op.args["indices"]), columns])
        d.produce(op, columns, op.args["weight"])

    def states(self, op: Op, s: StateContext) -> None:
        """The columns of the result have the states of those of the table."""
        s.set(op.outputs[0], [*s.of(op.args["indices"]), s.of(op.args["weight"])[1]])


class EmbeddingBag(SameSizes):
    """embedding_bag: looks up rows of a table and pools each column separately."""

    MAX = 2

    def dims(self, op: Op, d: AxisContext) -> None:
        """Rows are looked up and pooled by index and may not grow; columns may."""
        rows, columns = d.of(op.args["weight"])
        d.freeze(rows, Kind.INDEX, "its units are looked up by index")
        for name in ("indices", "offsets", "per_sample_weights"):
            for axis in d.of(op.args[name]) if op.args[name] is not None else ():
                d.freeze(axis, Kind.INDEX, "its units determine which rows are pooled")
        d.produce(op, columns, op.args["weight"])
        bags = op.outputs[0]
        for out in op.outputs:
            axes: list[Axis] = [Fixed(n) for n in out.shape]
            d.set(out, [*axes[:-1], columns] if out.shape == bags.shape and len(axes) > 1 else axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Sums and means are linear; a maximum is homogeneous, but not odd."""
        columns = s.of(op.args["weight"])[1]
        largest = op.args["mode"] == self.MAX
        pooled = [s.map_units(op, [x], odd=False, zero=True, homogeneous=True) for x in columns] if largest else columns
        places = [s.map_units(op, [x], odd=False, zero=False) for x in columns] if largest else []
        for out in op.outputs:
            row = pooled if out is op.outputs[0] else places
            s.set(out, [*([] for _ in out.shape[:-1]), row if s.count(s.axes(out)[-1]) else []])


class Index(SameSizes):
    """index, index_select, gather, take_along_dim: units are selected by index along some axes of the operand."""

    by_index = True

    def _over(self, op: Op) -> list[int] | None:
        """Return the indexed axes; None if the position of the others in the result is not known (masks)."""
        rank = len(op.args["self"].shape)
        if "dim" in op.args:
            return None if op.args["dim"] is None else [normal(op.args["dim"], rank)]
        indices = op.args["indices"]
        wide = any(i.dtype in (torch.bool, torch.uint8) for i in indices if isinstance(i, Value))
        return None if wide else [k for k, index in enumerate(indices) if index is not None]

    def _sources(self, op: Op) -> list[int | None]:
        """Return for each axis of the result the axis of the operand that it is, or None for an axis of the index.

        As in NumPy, the axes of adjacent indices replace the indexed axes, and those of other indices come first.
        """
        rank, out, over = len(op.args["self"].shape), op.outputs[0], self._over(op)
        if over is None:
            return [None] * len(out.shape)
        rest: list[int | None] = [k for k in range(rank) if k not in over]
        first = over[0] if over == list(range(over[0], over[0] + len(over))) else 0
        return [*rest[:first], *[None] * (len(out.shape) - len(rest)), *rest[first:]]

    def dims(self, op: Op, d: AxisContext) -> None:
        """Indexed axes may not grow; the others are those of the operand."""
        axes, out = d.of(op.args["self"]), op.outputs[0]
        sources = self._sources(op)
        for k, axis in enumerate(axes):
            if k not in sources:
                d.freeze(axis, Kind.INDEX, "its units are selected by index")
        result = [Fixed(n) if k is None else axes[k] for k, n in zip(sources, out.shape, strict=True)]
        if op.name in ("aten::gather", "aten::take_along_dim"):  # the index has as many units as its result
            index = d.of(op.args["index"] if "index" in op.args else op.args["indices"])
            result = [d.unify(a, b) if a != Fixed(n) else a for a, b, n in zip(result, index, out.shape, strict=True)]
        d.set(out, result)

    def states(self, op: Op, s: StateContext) -> None:
        """Along the other axes the states are those of the operand."""
        rows, axes, sources = s.of(op.args["self"]), s.axes(op.args["self"]), self._sources(op)
        chosen = [axis for k, axis in enumerate(axes) if k not in sources]
        s.set(op.outputs[0], [[] if k is None else [s.forget_index(x, chosen) for x in rows[k]] for k in sources])


class Create:
    """zeros, ones, full, their variants like zeros_like, and fill: all units are the same.

    An axis has the size that its consumers require, or that of the tensor from which the shape is taken.

    Args:
        sizes: name of the argument that holds the sizes; empty if the shape is that of the argument `self`.
        zero: whether all entries are zero.
    """

    by_index = True

    def __init__(self, sizes: str, *, zero: bool) -> None:
        self.sizes, self.zero = sizes, zero

    def dims(self, op: Op, d: AxisContext) -> None:
        """Axes are new atoms, or those of the tensor from which the shape is taken."""
        out = op.outputs[0]
        if not self.sizes:
            d.set(out, d.of(op.args["self"]))
            return
        axes: list[Axis] = [Fixed(n) if n <= 1 else d.algebra.atom(n) for n in out.shape]
        d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """All units, old and new, are the same."""
        out = op.outputs[0]
        state = s.null if self.zero else s.same
        rows: AxisStates = [[state] * s.count(axis) for axis in s.axes(out)]
        s.set(out, rows)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the new sizes, if the call has a sizes argument."""
        return {self.sizes: list(z.shape(op.outputs[0]))} if self.sizes else {}


class Enumerate(SameSizes):
    """arange, linspace and random tensors: units depend on their position, so no axis may grow."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """All axes are frozen."""
        out = op.outputs[0]
        axes: list[Axis] = [d.algebra.atom(n) for n in out.shape]
        for axis in axes:
            d.freeze(axis, Kind.CONSTANT, "its units are generated by position or at random")
        d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """There are no growing axes, so all rows are empty."""
        s.set(op.outputs[0], [[] for _ in op.outputs[0].shape])


register(Embedding(), "embedding")
register(EmbeddingBag(), "embedding_bag")
register(Index(), "index", "index_select", "gather", "take_along_dim")
register(Create("size", zero=True), "zeros", "new_zeros")
register(Create("size", zero=False), "ones", "new_ones", "full", "new_full")
register(Create("", zero=True), "zeros_like", "zero")
register(Create("", zero=False), "ones_like", "full_like", "fill")
register(Enumerate(), "arange", "linspace", "logspace", "eye", "rand", "randn", "randint", "randperm", "scalar_tensor")
register(Enumerate(), "rand_like", "randn_like", "empty", "new_empty", "empty_like", "tril_indices", "bernoulli")
