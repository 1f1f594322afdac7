"""Operators whose results are not used: they still run, so the sizes of their operands have to match."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Protocol

from ..capture.program.program import Op, Value
from ..dims.algebra import Algebra
from ..dims.axis import Atom, Axis, atoms
from ..errors import Kind
from ..rules import RULES

_VIEWS = frozenset({"aten::view", "aten::_unsafe_view", "aten::reshape", "aten::unflatten"})


def _all_given(op: Op) -> bool:
    """Return whether a view has no size -1."""
    sizes = next((op.args[name] for name in ("size", "shape", "sizes") if name in op.args), ())
    return -1 not in sizes


class Walked(Protocol):
    """The axes of all values of a program, as `DimsSolver` has found them."""

    algebra: Algebra
    fresh: bool
    axes: dict[int, Sequence[Axis]]

    def of(self, value: Value) -> list[Axis]:
        """Return the axes of a value."""

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Set the axes of a value."""


class Aside:
    """The `AxisContext` for operators whose results are not used, which keeps only equalities of sizes.

    An axis of a layer that only these operators use is unified with the axes that it meets, and grows with them. Axes
    of other operators are tied at most. Sums, producers, residual joins and frozen axes are ignored, because no result
    depends on them.
    """

    def __init__(self, dims: Walked, seen: Iterable[Value]) -> None:
        """`seen`: values on which results depend."""
        self._dims = dims
        self.algebra, self.adapt_skips, self.fresh = dims.algebra, False, dims.fresh
        resolve = self.algebra.resolve
        self._held = dict.fromkeys(a for value in seen for axis in dims.of(value) for a in atoms(resolve(axis)))
        """The atoms of these values."""
        self._now: tuple[int, frozenset[Axis]] = (-1, frozenset())

    def run(self, ops: Sequence[Op], written: Container[str]) -> None:
        """Run the rules of the operators in order; one that would change axes of other operators is ignored.

        However, a view with explicit sizes may split an axis into a product.

        Args:
            ops: the operators whose results are not used.
            written: nodes of which all numbers are constants in the code of the model.
        """
        known = [op for op in ops if op.name in RULES and op.step >= 0 and not op.varies]
        if not self._try(known):
            for op in known:
                self._try([op], splits=op.name in _VIEWS and op.node in written and _all_given(op))

    def _try(self, ops: Sequence[Op], *, splits: bool = False) -> bool:
        before, axes = self.algebra.copy(), dict(self._dims.axes)
        for op in ops:
            RULES[op.name].dims(op, self)
        if self._intact(before, splits=splits):
            return True
        self.algebra.restore(before)
        self._dims.axes.clear()
        self._dims.axes.update(axes)
        return False

    def _intact(self, before: Algebra, *, splits: bool) -> bool:
        """Return whether no atom has been unified with another, or frozen."""
        axes = [self.algebra.resolve(atom) for atom in self._held]
        now = [list(atoms(axis)) for axis in axes]
        parts = [part for some in now for part in some]
        if len(set(parts)) < len(parts) or not (splits or all(isinstance(axis, Atom) for axis in axes)):
            return False
        for atom, some in zip(self._held, now, strict=True):
            reason = before.frozen.get(atom.index)
            if not some or any(self.algebra.frozen.get(part.index) is not reason for part in some):
                return False
        self._held = dict.fromkeys(parts)
        return True

    def _is_seen(self, axis: Axis) -> bool:
        """Return whether all atoms of an axis occur in values on which results depend."""
        if self._now[0] != self.algebra.version:
            self._now = self.algebra.version, frozenset(map(self.algebra.resolve, self._held))
        return all(atom in self._now[1] for atom in atoms(self.algebra.resolve(axis)))

    def of(self, value: Value) -> list[Axis]:
        """Return the axes of a value."""
        return self._dims.of(value)

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Set the axes of an output."""
        self._dims.set(value, axes)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Require that two axes have equal sizes; return the first one."""
        if self._is_seen(a) and self._is_seen(b):
            self.algebra.tie(a, b)
        else:
            self.algebra.unify(a, b)
        return a

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """Ignore the reason: growth is not prevented by results that are not used."""

    def contract(self, op: Op, axis: Axis) -> None:
        """Ignore the sum: it is not a consumer."""

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """Ignore the axis: users cannot widen a layer whose results are not used."""

    def read(self, value: Value) -> bool:
        """Return False: no result depends on these values."""
        return False

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """Return False: both operands have the axes of the result."""
        return False
