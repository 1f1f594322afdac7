"""Tables and indices, and tensors made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, StateContext, normal, register


class Embedding(SameSizes):
    """embedding: rows of a table are looked up; the table's columns are born here."""

    by_index = False  # what enters or leaves it has no such index

    def dims(self, op: Op, d: AxisContext) -> None:
        """Rows are chosen by number, columns may grow."""
        rows, columns = d.of(op.args["weight"])
        d.freeze(rows, Kind.INDEX, "its units are looked up by number")
        d.set(op.outputs[0], [*d.of(op.args["indices"]), columns])
        d.produce(op, columns, op.args["weight"])

    def states(self, op: Op, s: StateContext) -> None:
        """Columns keep their states."""
        s.set(op.outputs[0], [*s.of(op.args["indices"]), s.of(op.args["weight"])[1]])


class EmbeddingBag(SameSizes):
    """embedding_bag: rows of a table are looked up and pooled, unit by unit; the table's columns are born here."""

    by_index = False  # what enters or leaves it has no such index

    MAX = 2

    def dims(self, op: Op, d: AxisContext) -> None:
        """Rows are chosen by number, weighed and pooled by number; columns may grow."""
        rows, columns = d.of(op.args["weight"])
        d.freeze(rows, Kind.INDEX, "its units are looked up by number")
        for name in ("indices", "offsets", "per_sample_weights"):
            for axis in d.of(op.args[name]) if op.args[name] is not None else ():
                d.freeze(axis, Kind.INDEX, "its units say which rows are pooled, by number")
        d.produce(op, columns, op.args["weight"])
        bags = op.outputs[0]
        for out in op.outputs:
            axes: list[Axis] = [Fixed(n) for n in out.shape]
            d.set(out, [*axes[:-1], columns] if out.shape == bags.shape and len(axes) > 1 else axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Sums and means are linear; the largest of opposite numbers is not opposite."""
        columns = s.of(op.args["weight"])[1]
        largest = op.args["mode"] == self.MAX
        pooled = [s.map_units(op, [x], odd=False, zero=True, homogeneous=True) for x in columns] if largest else columns
        places = [s.map_units(op, [x], odd=False, zero=False) for x in columns] if largest else []
        for out in op.outputs:
            row = pooled if out is op.outputs[0] else places
            s.set(out, [*([] for _ in out.shape[:-1]), row if s.count(s.axes(out)[-1]) else []])


class Index(SameSizes):
    """index, index_select, gather, take_along_dim: units are chosen by number along some axes; the others pass."""

    by_index = True

    def _over(self, op: Op) -> list[int] | None:
        """The axes whose units are chosen; None if it is not known where the others go (masks of several axes)."""
        rank = len(op.args["self"].shape)
        if "dim" in op.args:
            return None if op.args["dim"] is None else [normal(op.args["dim"], rank)]
        indices = op.args["indices"]
        wide = any(i.dtype in (torch.bool, torch.uint8) for i in indices if isinstance(i, Value))
        return None if wide else [k for k, index in enumerate(indices) if index is not None]

    def _sources(self, op: Op) -> list[int | None]:
        """For each axis of the result the operand's axis that it is, or None for one that the index brings.

        Indices that stand side by side are replaced where they stand; else what they bring comes first.
        """
        rank, out, over = len(op.args["self"].shape), op.outputs[0], self._over(op)
        if over is None:
            return [None] * len(out.shape)
        rest: list[int | None] = [k for k in range(rank) if k not in over]
        first = over[0] if over == list(range(over[0], over[0] + len(over))) else 0
        return [*rest[:first], *[None] * (len(out.shape) - len(rest)), *rest[first:]]

    def dims(self, op: Op, d: AxisContext) -> None:
        """A barrier over the indexed axes."""
        axes, out = d.of(op.args["self"]), op.outputs[0]
        sources = self._sources(op)
        for k, axis in enumerate(axes):
            if k not in sources:
                d.freeze(axis, Kind.INDEX, "its units are chosen by number")
        result = [Fixed(n) if k is None else axes[k] for k, n in zip(sources, out.shape, strict=True)]
        if op.name in ("aten::gather", "aten::take_along_dim"):  # the index has as many units as its result
            index = d.of(op.args["index"] if "index" in op.args else op.args["indices"])
            result = [d.unify(a, b) if a != Fixed(n) else a for a, b, n in zip(result, index, out.shape, strict=True)]
        d.set(out, result)

    def states(self, op: Op, s: StateContext) -> None:
        """Along other axes units keep their states."""
        marks, axes, sources = s.of(op.args["self"]), s.axes(op.args["self"]), self._sources(op)
        chosen = [axis for k, axis in enumerate(axes) if k not in sources]
        s.set(op.outputs[0], [[] if k is None else [s.forget_index(x, chosen) for x in marks[k]] for k in sources])


class Create:
    """zeros, ones, full and their like, and fill: every unit is the same.

    Every axis takes the size that its readers want, or that of the tensor that is imitated or overwritten.
    """

    by_index = True

    def __init__(self, sizes: str, *, zero: bool) -> None:
        self.sizes, self.zero = sizes, zero

    def dims(self, op: Op, d: AxisContext) -> None:
        """Fresh axes; those made like another tensor's share its axes."""
        out = op.outputs[0]
        if not self.sizes:
            d.set(out, d.of(op.args["self"]))
            return
        axes: list[Axis] = [Fixed(n) if n <= 1 else d.algebra.atom(n) for n in out.shape]
        d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """All units are equal."""
        out = op.outputs[0]
        state = s.null if self.zero else s.same
        marks: AxisStates = [[state] * s.count(axis) for axis in s.axes(out)]
        s.set(out, marks)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Sizes that are written out follow their axes."""
        return {self.sizes: list(z.shape(op.outputs[0]))} if self.sizes else {}


class Enumerate(SameSizes):
    """arange, linspace and random tensors: units differ by their number, so no axis may grow."""

    by_index = False  # what enters or leaves it has no such index

    def dims(self, op: Op, d: AxisContext) -> None:
        """Barriers from birth."""
        out = op.outputs[0]
        axes: list[Axis] = [d.algebra.atom(n) for n in out.shape]
        for axis in axes:
            d.freeze(axis, Kind.CONSTANT, "its units are numbered, or made, on the spot")
        d.set(out, axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Nothing grows here."""
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
