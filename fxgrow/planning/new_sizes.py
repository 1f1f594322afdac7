"""Compute the size of every axis, value and operator argument after a growth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Value
from ..dims.axis import Atom, Axis, last_growing
from ..rules import RULES


class NewSizes:
    """The new sizes of a growth; the `SizeContext` that is passed to rules."""

    def __init__(
        self,
        dims: DimsSolver,
        new: Mapping[Atom, int],
        numbers: Mapping[int, Mapping[str, float]] | None = None,
        paired: frozenset[str] | None = None,
        copied: Mapping[str, Mapping[Atom, tuple[int, ...]]] | None = None,
    ) -> None:
        """Store the new size of each growing atom, with the other choices that rules depend on.

        Args:
            dims: The axes of the program.
            new: The new size of each growing atom.
            numbers: Arguments that change, by `id` of the operator.
            paired: The nodes at which the new units of a skip path are pairs of equal halves; None for all nodes.
            copied: The copy maps of each skip adapter, by node.
        """
        self.dims = dims
        self.algebra = dims.algebra
        self.new = new
        self.numbers = numbers or {}
        self._paired = paired
        self._copied = copied or {}

    def size(self, axis: Axis) -> int:
        """Return the new size of an axis."""
        return self.algebra.measure(axis, self.new)

    def axes(self, value: Value) -> list[Axis]:
        """Return the resolved axes of a value."""
        return self.dims.resolved(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the new shape of a value."""
        if value.index not in self.dims.axes:
            return value.shape
        return tuple(self.size(axis) for axis in self.dims.axes[value.index])

    def arguments(self, op: Op) -> Mapping[str, Any]:
        """Return all arguments of an operator after the growth; tensor arguments are the current values."""
        rule = RULES.get(op.name)
        if rule is None:
            return op.args
        return {**op.args, **rule.resized(op, self), **self.numbers.get(id(op), {})}

    def paired(self, op: Op) -> bool:
        """Return whether the new units of a skip path are pairs of equal halves."""
        return self._paired is None or op.node in self._paired

    def copied(self, op: Op, axis: Axis) -> tuple[int, ...]:
        """Return the units of `axis` that a skip adapter copies to its missing channels; empty if these are zero."""
        resolved, maps = self.algebra.resolve(axis), self._copied.get(op.node, {})
        last = last_growing(resolved, self.new)
        if last is None:
            return ()
        before = self.algebra.measure(resolved) - self.algebra.measure(last)
        return tuple(before + unit for unit in maps.get(last, ()))
