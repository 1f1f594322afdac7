"""A growth as sizes: what every axis, value and argument measures afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..analysis.solver import DimsSolver
from ..capture.program.program import Op, Value
from ..dims.axis import Atom, Axis, last_growing
from ..rules import RULES


class NewSizes:
    """The `SizeContext` that rules see."""

    def __init__(
        self,
        dims: DimsSolver,
        new: Mapping[Atom, int],
        numbers: Mapping[int, Mapping[str, float]] | None = None,
        paired: frozenset[str] | None = None,
        copied: Mapping[str, Mapping[Atom, tuple[int, ...]]] | None = None,
    ) -> None:
        """Some sizes, and what goes with them.

        `numbers`: arguments that change, by identity of an operator. `paired`: nodes at which a skip path brings pairs
        of equal halves; None for all. `copied`: by node of an adapter of which units its missing ones are copies.
        """
        self.dims = dims
        self.algebra = dims.algebra
        self.new = new
        self.numbers = numbers or {}
        self._paired = paired
        self._copied = copied or {}

    def size(self, axis: Axis) -> int:
        """The new size of an axis."""
        return self.algebra.measure(axis, self.new)

    def axes(self, value: Value) -> list[Axis]:
        """The axes of a value."""
        return self.dims.resolved(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """The new shape of a value."""
        if value.index not in self.dims.axes:
            return value.shape
        return tuple(self.size(axis) for axis in self.dims.axes[value.index])

    def arguments(self, op: Op) -> Mapping[str, Any]:
        """All arguments of an operator afterwards; tensors as they are named now."""
        rule = RULES.get(op.name)
        if rule is None:
            return op.args
        return {**op.args, **rule.resized(op, self), **self.numbers.get(id(op), {})}

    def paired(self, op: Op) -> bool:
        """Whether new units of a skip path are pairs of equal halves."""
        return self._paired is None or op.node in self._paired

    def copied(self, op: Op, axis: Axis) -> tuple[int, ...]:
        """Of what an adapter's missing channels along a growing axis are copies; nothing if they are zero."""
        resolved, maps = self.algebra.resolve(axis), self._copied.get(op.node, {})
        last = last_growing(resolved, self.new)
        if last is None:
            return ()
        before = self.algebra.measure(resolved) - self.algebra.measure(last)
        return tuple(before + unit for unit in maps.get(last, ()))
