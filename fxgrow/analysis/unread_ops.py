"""Operators whose results nobody reads: they run all the same, so that the sizes of what they are given have to fit."""

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
    """Whether a view says all its sizes."""
    sizes = next((op.args[name] for name in ("size", "shape", "sizes") if name in op.args), ())
    return -1 not in sizes


class Walked(Protocol):
    """The axes that a walk over a program has found."""

    algebra: Algebra
    fresh: bool
    axes: dict[int, Sequence[Axis]]

    def of(self, value: Value) -> list[Axis]:
        """The axes of a value."""

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Say what the axes of a value are."""


class Aside:
    """What rules may say of such operators: which axes have one size.

    An axis of a layer that only they read is the axis that it meets, so that it grows along. Axes that other operators
    see keep what was found out about them: two of them are tied at most. Sums over units, births and residual joins are
    of no account where no result depends on them, and so are reasons not to grow.
    """

    def __init__(self, dims: Walked, seen: Iterable[Value]) -> None:
        """`seen`: values that results depend on."""
        self._dims = dims
        self.algebra, self.adapt_skips, self.fresh = dims.algebra, False, dims.fresh
        resolve = self.algebra.resolve
        self._held = dict.fromkeys(a for value in seen for axis in dims.of(value) for a in atoms(resolve(axis)))
        """Their atoms."""
        self._now: tuple[int, frozenset[Axis]] = (-1, frozenset())

    def run(self, ops: Sequence[Op], written: Container[str]) -> None:
        """Look at operators in order; one that would change what others have found out counts for nothing.

        An axis that is viewed as several, all of whose sizes are written, can grow by one of them only.

        Args:
            ops: those that nobody reads.
            written: nodes of which all numbers are written in the model's code.
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
        """Whether no atom has become another one, or may no longer grow."""
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
        """Whether other operators see all parts of an axis."""
        if self._now[0] != self.algebra.version:
            self._now = self.algebra.version, frozenset(map(self.algebra.resolve, self._held))
        return all(atom in self._now[1] for atom in atoms(self.algebra.resolve(axis)))

    def of(self, value: Value) -> list[Axis]:
        """The axes of a value."""
        return self._dims.of(value)

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Say what the axes of an output are."""
        self._dims.set(value, axes)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Two axes have one size."""
        if self._is_seen(a) and self._is_seen(b):
            self.algebra.tie(a, b)
        else:
            self.algebra.unify(a, b)
        return a

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """No reason."""

    def contract(self, op: Op, axis: Axis) -> None:
        """No reader."""

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """No producer."""

    def read(self, value: Value) -> bool:
        """No."""
        return False

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """No join: both operands have the size of the result."""
        return False
