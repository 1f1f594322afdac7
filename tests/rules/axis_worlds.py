"""Axes as rows of numbered units beside their expressions: a brute-force picture of what the algebra computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product as cartesian

from hypothesis import strategies as st

from fxgrow.dims.algebra import Algebra
from fxgrow.dims.axis import Atom, Axis, Fixed, Product, Sum, product, total

Unit = tuple[tuple[int, int], ...]
"""What an expression says of one unit: for each atom its number within it, in no order."""


def units(algebra: Algebra, axis: Axis) -> list[Unit]:
    """Every unit of an axis, in order; fixed factors and terms leave no trace."""
    axis = algebra.resolve(axis)
    match axis:
        case Atom(index):
            return [((index, k),) for k in range(algebra.size[index])]
        case Fixed(size):
            return [()] * size
        case Product(factors):
            rows = cartesian(*(units(algebra, f) for f in factors))
            return [tuple(sorted(pair for part in row for pair in part)) for row in rows]
        case Sum(terms):
            return [unit for term in terms for unit in units(algebra, term)]


class World:
    """Some axes, each as an expression and as a row of unit numbers; numbers that have met are one (union-find)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.algebra = Algebra()
        self.parent: list[int] = []
        self.axes: list[tuple[Axis, list[int]]] = []
        for size in sizes:
            start = len(self.parent)
            self.parent.extend(range(start, start + size))
            self.axes.append((self.algebra.atom(size), list(range(start, start + size))))
        self.born = tuple(self.axes)

    def find(self, unit: int) -> int:
        """The number that stands for all units that are one with this one."""
        while self.parent[unit] != unit:
            unit = self.parent[unit]
        return unit

    def unify(self, i: int, j: int, *, swapped: bool = False) -> None:
        """Two axes meet unit by unit; the longer one only with its beginning."""
        (a, xs), (b, ys) = self.axes[i % len(self.axes)], self.axes[j % len(self.axes)]
        size = min(len(xs), len(ys))
        a, b = (
            self.algebra.cut(axis, [size, n - size])[0] if n > size else axis
            for axis, n in ((a, len(xs)), (b, len(ys)))
        )
        self.algebra.unify(*((b, a) if swapped else (a, b)))
        for x, y in zip(xs, ys, strict=False):
            x, y = self.find(x), self.find(y)
            self.parent[max(x, y)] = min(x, y)

    def cut(self, i: int, at: int) -> None:
        """One axis becomes two."""
        axis, xs = self.axes[i % len(self.axes)]
        at = at % len(xs)
        if at:
            parts = self.algebra.cut(axis, [at, len(xs) - at])
            self.axes += [(parts[0], xs[:at]), (parts[1], xs[at:])]

    def cat(self, i: int, j: int) -> None:
        """Two axes become one."""
        (a, xs), (b, ys) = self.axes[i % len(self.axes)], self.axes[j % len(self.axes)]
        if len(xs) + len(ys) <= 24:
            self.axes.append((total([self.algebra.resolve(a), self.algebra.resolve(b)]), xs + ys))

    def shuffle(self, i: int, groups: int) -> None:
        """(g c) becomes (c g)."""
        axis, xs = self.axes[i % len(self.axes)]
        if len(xs) % groups == 0:
            each = len(xs) // groups
            g, c = self.algebra.split(axis, (groups, each))
            order = [xs[k * each + m] for m in range(each) for k in range(groups)]
            self.axes.append((product([c, g]), order))

    def growable(self, unit: Unit) -> Unit:
        """The part of a unit's description that may grow."""
        return tuple(pair for pair in unit if pair[0] not in self.algebra.frozen)

    def described(self) -> Iterator[tuple[int, Unit]]:
        """Every unit that was born, with what the algebra says of it now."""
        for axis, xs in self.born:
            yield from zip(map(self.find, xs), units(self.algebra, axis), strict=True)

    def torn(self) -> list[Unit]:
        """Descriptions of units that have met, and that the algebra tells apart in what may grow."""
        first: dict[int, Unit] = {}
        free = ((number, self.growable(text)) for number, text in self.described())
        return [text for number, text in free if first.setdefault(number, text) != text]

    def merged(self) -> list[Unit]:
        """Descriptions that units have in common which have never met."""
        first: dict[Unit, int] = {}
        free = ((number, text) for number, text in self.described() if text == self.growable(text))
        return [text for number, text in free if first.setdefault(text, number) != number]


Step = Callable[[World], None]


def steps(*, shuffles: bool, swapped: bool = False) -> st.SearchStrategy[list[Step]]:
    """Things that may happen to axes. Numbers are small, so that they shrink to few axes and short ones."""
    number = st.integers(0, 7)
    kinds: list[st.SearchStrategy[Step]] = [
        st.builds(lambda i, j: lambda w: w.unify(i, j, swapped=swapped), number, number),
        st.builds(lambda i, at: lambda w: w.cut(i, at), number, st.integers(1, 7)),
        st.builds(lambda i, j: lambda w: w.cat(i, j), number, number),
    ]
    if shuffles:
        kinds.append(st.builds(lambda i, g: lambda w: w.shuffle(i, g), number, st.integers(2, 4)))
    return st.lists(st.one_of(kinds), max_size=8)


sizes = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), min_size=1, max_size=4)


def expressions(algebra: Algebra) -> st.SearchStrategy[Axis]:
    """Any expression at all, in no normal form, over new atoms of an algebra."""
    leaves = st.builds(algebra.atom, st.integers(1, 4)) | st.builds(Fixed, st.integers(1, 4))
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
            lambda parts: st.sampled_from([Product(tuple(parts)), Sum(tuple(parts))])
        ),
        max_leaves=6,
    )
