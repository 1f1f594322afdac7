"""The algebra of axes: unification of axis expressions (sums of products of atoms).

Operators require that axes are equal, products or concatenations of others. Atoms are refined accordingly, and all
expressions that contain them follow. Where no common refinement exists (groups of four that should also be groups of
six) the axes are frozen as non-aligned. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from ..errors import Kind
from .axis import Atom, Axis, Fixed, Product, Sum, atoms, factors_of, product, terms_of, total


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an atom may not grow: the kind, the position in the program of the operator that prevents it, and a
    sentence."""

    kind: Kind
    op: int
    text: str


class Algebra:
    """The atoms of a program: their sizes, the expressions that replace them, and the reasons why they may not grow.

    An atom that has been refined has a link to the expression that replaces it; `resolve` follows the links. Copies are
    cheap, so that assumptions can be tried out on a copy.
    """

    def __init__(self) -> None:
        self.size: list[int] = []
        self.link: list[Axis | None] = []
        self.frozen: dict[int, Reason] = {}
        self.unions: list[tuple[int, int, int]] = []
        """(atom, atom, operator) of every union, for explanations."""
        self.ties: list[tuple[Atom, Atom]] = []
        """Pairs of atoms that keep equal sizes, although their units are not the same."""
        self._tied: list[tuple[Axis, Axis]] = []
        self._splits: dict[object, list[Axis]] = {}
        self.op = -1
        """The position of the operator whose rule is running."""
        self.version = 0
        """Incremented whenever a normal form may have changed."""
        self._normal: dict[int, tuple[Axis, Axis]] = {}
        """Cache by identity: expressions and their normal forms, for one version."""
        self._normal_at = 0

    def atom(self, size: int) -> Atom:
        """Create an atom of the given size."""
        self.size.append(size)
        self.link.append(None)
        return Atom(len(self.size) - 1)

    def resolve(self, axis: Axis) -> Axis:
        """Return the normal form of an expression, with all atoms replaced that have been refined so far."""
        if type(axis) is Atom:
            index = axis.index
            link = self.link[index]
            if link is None:
                return axis
            while type(link) is Atom:
                index, axis = link.index, link
                link = self.link[index]
            if link is None:
                return axis
            self._settle(index)
            settled = self.link[index]
            assert settled is not None, "a link is replaced, never removed"
            return settled
        if type(axis) is Fixed:
            return axis
        if self._normal_at != self.version:
            self._normal.clear()
            self._normal_at = self.version
        known = self._normal.get(id(axis))
        if known is not None:
            return known[1]
        found = (
            product([self.resolve(f) for f in axis.factors])
            if type(axis) is Product
            else total([self.resolve(t) for t in cast("Sum", axis).terms])
        )
        self._normal[id(axis)] = axis, found
        self._normal[id(found)] = found, found
        return found

    def _settle(self, index: int) -> None:
        """Bring the link of an atom into normal form, innermost links first and without recursion: an axis that was cut
        unit by unit has a chain of links as long as the axis."""
        waiting = [index]
        while waiting:
            link = self.link[waiting[-1]]
            assert link is not None, "an atom without a link is in normal form"
            inner = [a.index for a in atoms(link) if self._unsettled(a.index)]
            if inner:
                waiting += inner
            else:
                self.link[waiting.pop()] = self.resolve(link)

    def _unsettled(self, index: int) -> bool:
        """Return whether the link of an atom contains atoms that have links themselves."""
        link = self.link[index]
        return link is not None and any(self.link[a.index] is not None for a in atoms(link))

    def measure(self, axis: Axis, sizes: Mapping[Atom, int] | None = None) -> int:
        """Return the number of units of an axis; `sizes` replaces the current sizes of some (resolved) atoms."""
        axis = self.resolve(axis)
        match axis:
            case Atom(index):
                return self.size[index] if sizes is None else sizes.get(axis, self.size[index])
            case Fixed(size):
                return size
            case Product(factors):
                return prod(self.measure(f, sizes) for f in factors)
            case Sum(terms):
                return sum(self.measure(t, sizes) for t in terms)

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """Forbid that any atom of an axis grows; an atom that is frozen already keeps its reason."""
        axis = self.resolve(axis)
        if type(axis) is Fixed:
            return
        for atom in atoms(axis):
            if atom.index not in self.frozen:
                self.frozen[atom.index] = Reason(kind, self.op, text)

    def tie(self, a: Axis, b: Axis) -> None:
        """Record that two axes should keep equal sizes; `settle_ties` applies it when all refinement is done."""
        self._tied.append((a, b))

    def settle_ties(self) -> None:
        """Turn ties of axes into ties of atoms. Axes of different structure are not tied."""
        queue, self._tied = self._tied, []
        while queue:
            a, b = (self.resolve(axis) for axis in queue.pop())
            if isinstance(b, Atom):
                a, b = b, a
            if a == b:
                continue
            if isinstance(a, Atom) and isinstance(b, Atom):
                self.ties.append((a, b))
            elif isinstance(a, Atom):
                if not isinstance(b, Fixed) and a not in atoms(b):
                    self._bind(a, self._mirror(b))
                    queue.append((a, b))
            elif isinstance(a, Product | Sum) and type(a) is type(b):
                left = a.factors if isinstance(a, Product) else a.terms
                right = b.factors if isinstance(b, Product) else b.terms
                if list(map(self.measure, left)) == list(map(self.measure, right)):
                    queue.extend(zip(left, right, strict=True))

    def _mirror(self, axis: Axis) -> Axis:
        """Return an expression of the same structure with new atoms."""
        match axis:
            case Atom(index):
                return self.atom(self.size[index])
            case Fixed():
                return axis
            case Product(factors):
                return Product(tuple(self._mirror(f) for f in factors))
            case Sum(terms):
                return Sum(tuple(self._mirror(t) for t in terms))

    def unify(self, a: Axis, b: Axis) -> None:
        """Require that unit k of one axis is unit k of the other; axes that do not match are frozen."""
        a, b = self.resolve(a), self.resolve(b)
        if a is b or a == b:
            return
        if type(a) is Atom and type(b) is Atom:
            self._union(a, b)
        elif self.measure(a) != self.measure(b):
            self._misfit(a, b)
        elif isinstance(a, Fixed) or isinstance(b, Fixed):
            self.freeze(a, Kind.FIXED, "it is combined with an axis of fixed size")
            self.freeze(b, Kind.FIXED, "it is combined with an axis of fixed size")
        elif isinstance(a, Atom):
            self._bind(a, b)
        elif isinstance(b, Atom):
            self._bind(b, a)
        else:
            self._align(terms_of(a), terms_of(b))

    def split(self, axis: Axis, sizes: Sequence[int], key: object = None) -> list[Axis]:
        """Split an axis into a row-major product of axes with the given sizes.

        If some atoms have one unit, there are several ways to split. A caller that splits the same axis several times
        passes a `key`, for which the first result is returned again.
        """
        if key is not None:
            if key not in self._splits:
                self._splits[key] = self.split(axis, sizes)
            return [self.resolve(part) for part in self._splits[key]]
        axis = self.resolve(axis)
        if len(sizes) == 1:
            return [axis]
        if isinstance(axis, Fixed):
            return [Fixed(s) for s in sizes]
        if isinstance(axis, Product) and [self.measure(factor) for factor in axis.factors] == list(sizes):
            return list(axis.factors)  # these may include atoms of one unit
        parts: list[Axis] = [Fixed(1) if s == 1 else self.atom(s) for s in sizes]
        if sum(s != 1 for s in sizes) == 1:  # nothing to split: all other sizes are 1
            return [axis if s != 1 else Fixed(1) for s in sizes]
        self.unify(axis, product(parts))
        return [self.resolve(p) for p in parts]

    def counted(self, axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
        """Split a concatenation of equal atoms into their number and the parts of each; return None for other axes.

        The first part, which counts the terms, cannot grow, and states may differ along it, as along the 3 of (3 h d)
        for queries, keys and values in one tensor.
        """
        axis = self.resolve(axis)
        terms = axis.terms if isinstance(axis, Sum) else ()
        if len(sizes) < 2 or len(terms) != sizes[0] or len(set(map(self.measure, terms))) != 1:
            return None
        if not all(isinstance(term, Atom) for term in terms):
            return None
        parts = self.split(terms[0], sizes[1:])
        for term in terms[1:]:
            self.unify(terms[0], term)
        count = self.atom(len(terms))
        self.freeze(count, Kind.INDEX, "it counts the terms of a concatenation")
        return [count, *map(self.resolve, parts)]

    def cut(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Cut an axis into a concatenation of axes with the given sizes."""
        axis = self.resolve(axis)
        if len(sizes) == 1:
            return [axis]
        if isinstance(axis, Fixed):
            return [Fixed(s) for s in sizes]
        parts: list[Axis] = [self.atom(s) if s else Fixed(0) for s in sizes]
        self.unify(axis, Sum(tuple(p for p in parts if p != Fixed(0))) if sum(map(bool, sizes)) > 1 else total(parts))
        return [self.resolve(p) for p in parts]

    # -- unification --------------------------------------------------------------------------------------------

    def _union(self, a: Atom, b: Atom) -> None:
        if self.size[a.index] != self.size[b.index]:
            self._misfit(a, b)
            return
        if b.index < a.index:
            a, b = b, a
        self.link[b.index] = a
        self.version += 1
        self.unions.append((a.index, b.index, self.op))
        reason = self.frozen.get(b.index)
        if reason is not None:
            self.frozen.setdefault(a.index, reason)

    def _bind(self, atom: Atom, axis: Axis) -> None:
        if atom in atoms(axis):
            self._misfit(atom, axis)
            return
        self.link[atom.index] = axis
        self.version += 1
        self.unions.extend((atom.index, part.index, self.op) for part in atoms(axis))
        reason = self.frozen.get(atom.index)
        if reason is not None:
            for part in atoms(axis):
                self.frozen.setdefault(part.index, reason)

    def _misfit(self, *axes: Axis) -> None:
        for axis in axes:
            self.freeze(axis, Kind.NON_ALIGNED, "its units do not align with those of another axis")

    def _align(self, left: list[Axis], right: list[Axis]) -> None:
        """Unify two concatenations term by term, cutting terms where the other side has a boundary."""
        while left and right:
            a, b = self.measure(left[0]), self.measure(right[0])
            if a == b:
                self._align_terms(left.pop(0), right.pop(0))
            else:
                side, at = (right, a) if a < b else (left, b)
                side[0:1] = self._cut_term(side[0], at)
            left, right = self._open(left), self._open(right)

    def _open(self, terms: list[Axis]) -> list[Axis]:
        """Return resolved terms, sums among them flattened; adjacent fixed terms are not added."""
        return [part for term in terms for part in terms_of(self.resolve(term))]

    def _align_terms(self, a: Axis, b: Axis) -> None:
        """Unify two terms of equal size; products factor by factor, splitting factors where their sizes differ."""
        a, b = self.resolve(a), self.resolve(b)
        if not (isinstance(a, Product) and isinstance(b, Product)):
            if (isinstance(a, Fixed) and isinstance(b, Product)) or (isinstance(b, Fixed) and isinstance(a, Product)):
                self.freeze(a, Kind.FIXED, "it is combined with an axis of fixed size")
                self.freeze(b, Kind.FIXED, "it is combined with an axis of fixed size")
            elif isinstance(a, Sum) or isinstance(b, Sum):
                self._align(terms_of(a), terms_of(b))
            else:
                self.unify(a, b)
            return
        left, right = factors_of(a), factors_of(b)
        while left and right:
            x, y = self.measure(left[0]), self.measure(right[0])
            if x == y:
                self.unify(left.pop(0), right.pop(0))
            elif 1 in (x, y):  # an atom of one unit that has no counterpart cannot grow
                self._misfit((left if x == 1 else right).pop(0))
            else:
                side, at, whole = (right, x, y) if x < y else (left, y, x)
                if whole % at:
                    self._misfit(a, b)
                    return
                side[0:1] = self.split(side[0], (at, whole // at))
            left, right = self._again(left), self._again(right)
        self._misfit(*left, *right)

    def _again(self, factors: list[Axis]) -> list[Axis]:
        """Return resolved factors without factors of 1; a sum stays a single factor."""
        flat = [part for f in factors for part in factors_of(self.resolve(f))]
        return [f for f in flat if f != Fixed(1)]

    def _cut_term(self, term: Axis, at: int) -> list[Axis]:
        """Cut a term in two. If the cut lies inside a group of a product, that group becomes a separate term, which is
        cut in the next step; this number of groups, one, never changes."""
        term = self.resolve(term)
        if isinstance(term, Fixed):
            return [Fixed(at), Fixed(term.size - at)]
        if isinstance(term, Atom):
            pieces: list[Axis] = [self.atom(at), self.atom(self.size[term.index] - at)]
            self._bind(term, Sum(tuple(pieces)))
            return pieces
        factors = factors_of(term)
        first, rest = factors[0], factors[1:]
        stride = prod(self.measure(f) for f in rest)
        before, count = at // stride, self.measure(first)
        heads = [before, count - before] if at % stride == 0 else [before, 1, count - before - 1]
        heads = [head for head in heads if head]
        if isinstance(first, Fixed):
            parts: list[Axis] = [Fixed(h) for h in heads]
        else:  # a piece of one unit is only a count, e.g. of the operands of a concatenation
            parts = [Fixed(1) if h == 1 else self.atom(h) for h in heads]
            assert isinstance(first, Atom), "the normal form multiplies out a leading sum"
            self._bind(first, total(parts))
        return [product([part, *rest]) for part in parts]

    def reason(self, axis: Axis) -> Reason | None:
        """Return why no atom of an axis may grow, or None if one may."""
        found: Reason | None = None
        for atom in atoms(self.resolve(axis)):
            why = self.frozen.get(atom.index)
            if why is None:
                return None
            found = found or why
        return found if found is not None else self._inherited(axis)

    def _inherited(self, axis: Axis) -> Reason | None:
        seen: Axis | None = axis
        while isinstance(seen, Atom):
            if seen.index in self.frozen:
                return self.frozen[seen.index]
            seen = self.link[seen.index]
        return None

    def growable(self, axis: Axis) -> list[Atom]:
        """Return the distinct atoms of an axis that may grow, from left to right."""
        return list(dict.fromkeys(a for a in atoms(self.resolve(axis)) if a.index not in self.frozen))

    def in_step(self, atom: Atom) -> list[Atom]:
        """Return an atom and all atoms that are tied to it; a tied atom that may not grow is left out."""
        found = [atom]
        pairs = [(self.resolve(a), self.resolve(b)) for a, b in self.ties]
        for member in found:
            for x, y in pairs:
                for one, other in ((x, y), (y, x)):
                    free = isinstance(other, Atom) and other.index not in self.frozen
                    if one == member and isinstance(other, Atom) and free and other not in found:
                        found.append(other)
        return found

    def copy(self) -> Algebra:
        """Return an independent copy."""
        other = Algebra()
        other.size, other.link, other.frozen = self.size.copy(), self.link.copy(), self.frozen.copy()
        other.unions, other.ties = self.unions.copy(), self.ties.copy()
        other._tied, other._splits = self._tied.copy(), self._splits.copy()
        return other

    def restore(self, before: Algebra) -> None:
        """Discard all changes since the copy `before` was made."""
        self.size, self.link, self.frozen = before.size, before.link, before.frozen
        self.unions, self.ties = before.unions, before.ties
        self._tied, self._splits = before._tied, before._splits
        self.version += 1

    def name(self, atom: Atom) -> str:
        """Return a short name for an atom in printed expressions."""
        return f"d{atom.index}"


Namer = Callable[[Atom], str]
