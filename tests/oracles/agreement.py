"""Does the algebra of axes agree with the orbits? It may refuse more; it may never join or split differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product

from fxgrow.analysis.solver import DimsSolver
from fxgrow.capture.program.program import Program
from fxgrow.dims.algebra import Algebra
from fxgrow.dims.axis import Atom, Axis, Fixed, Product, Sum
from fxgrow.errors import Kind

from .labels import Block
from .orbits import Orbits

Place = tuple[tuple[int, int], ...]
"""Where a unit lies: for each atom that the expression of its axis has there, its number within the atom. Sorted."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What came of a comparison; counts are of the units of all parameter axes that have more than one."""

    units: int
    refused: int
    """Units no atom of which may grow."""
    non_aligned: int
    """Refused units that are refused because some split does not fall on a boundary."""
    orbits: int
    """Orbits among the units that may grow."""
    classes: int
    """Classes of the algebra among them. Frozen factors may make it tell apart what is one orbit."""
    disagreements: tuple[str, ...]
    unknown: tuple[str, ...]
    """Operators that labels do not get through: behind them the orbits require too little."""


def compare(program: Program, dims: DimsSolver | None = None) -> Agreement:
    """Compare the orbits of a program's parameter units with what the algebra makes of them.

    Agreement means, of units that the algebra lets grow:

    * it joins nothing that the orbits keep apart: units that lie in one place are one orbit, or are held together by
      blocks (the features that one channel became; the two halves of a shuffle that lie in one unit of an axis);
    * it splits nothing that the orbits join: all units and blocks of an orbit lie in one place, frozen atoms apart;
    * a block holds each atom that it varies in from the first unit to the last: no cut runs through an atom.

    A block of units lies where all of its members lie.
    """
    return _Comparison(program, dims or DimsSolver(program).solve()).result()


def places(algebra: Algebra, axis: Axis) -> list[Place]:
    """Where each unit of an axis lies, in order. Fixed units and terms of a sum leave no trace."""
    match axis:
        case Atom(index):
            return [((index, k),) for k in range(algebra.size[index])]
        case Fixed(size):
            return [()] * size
        case Product(factors):
            return [tuple(sorted(chain(*row))) for row in product(*(places(algebra, f) for f in factors))]
        case Sum(terms):
            return [place for term in terms for place in places(algebra, term)]


class _Comparison:
    def __init__(self, program: Program, dims: DimsSolver) -> None:
        self.algebra = dims.algebra
        self.orbits = Orbits(program)
        self.labels = self.orbits.labels
        values = {index: program.values[index] for index, _, _ in self.orbits.born.values()}
        self.names = {index: value.names[0] for index, value in values.items()}
        rows = {
            (index, k): places(self.algebra, axis)
            for index, value in values.items()
            for k, axis in enumerate(dims.resolved(value))
        }
        self.place: dict[int, Place] = {
            label: rows[index, axis][k]
            for label, (index, axis, k) in self.orbits.born.items()
            if values[index].shape[axis] > 1
        }
        self.at: dict[Place, list[int]] = {}
        for label, place in self.place.items():
            self.at.setdefault(place, []).append(label)
        self.blocks: dict[int, list[tuple[Block, int]]] = {}
        for key, orbit in self.orbits.blocks.items():
            for root in {*key, orbit}:
                self.blocks.setdefault(root, []).append((key, orbit))

    def result(self) -> Agreement:
        units = list(self.place)
        growing = [u for u in units if self.growable(self.place[u])]
        frozen = self.algebra.frozen
        seams = [u for u in units if any(self._seam(a) for a, _ in self.place[u]) and not self.growable(self.place[u])]
        assert all(a in frozen for u in seams for a, _ in self.place[u])
        return Agreement(
            units=len(units),
            refused=len(units) - len(growing),
            non_aligned=len(seams),
            orbits=len({self.labels.find(u) for u in growing}),
            classes=len({self.place[u] for u in growing}),
            disagreements=(*self._joined(), *self._split(), *self._cut()),
            unknown=tuple(sorted(self.orbits.unknown)),
        )

    def _seam(self, atom: int) -> bool:
        return atom in self.algebra.frozen and self.algebra.frozen[atom].kind is Kind.NON_ALIGNED

    def growable(self, place: Place) -> Place:
        """The part of a place that may grow."""
        return tuple((a, k) for a, k in place if a not in self.algebra.frozen)

    def _joined(self) -> Iterator[str]:
        """What the algebra joins and the orbits keep apart."""
        for place, units in self.at.items():
            if not self.growable(place):
                continue
            roots = {self.labels.find(u) for u in units}
            together = self._together(roots)
            if together != roots and not self._ambiguous(place, units):
                one = next(u for u in units if self.labels.find(u) in together)
                other = next(u for u in units if self.labels.find(u) not in together)
                yield f"the algebra joins {self.show([one])} and {self.show([other])} as {show(place)}, no orbit does"

    def _together(self, roots: set[int]) -> set[int]:
        """The part of some orbits that blocks of nothing but them hold together with one of them."""
        found, queue = set[int](), [min(roots)]
        while queue:
            root = queue.pop()
            if root not in found:
                found.add(root)
                queue += [r for key, orbit in self.blocks.get(root, ()) if key <= roots for r in (*key, orbit)]
        return found & roots

    def _ambiguous(self, place: Place, units: list[int]) -> bool:
        """Whether an atom that lies twice in a place is all that joins units: (1, 2) and (2, 1) look alike."""
        axes: dict[tuple[int, int], set[int]] = {}
        for unit in units:
            axes.setdefault(self.orbits.born[unit][:2], set()).add(self.labels.find(unit))
        twice = len({atom for atom, _ in place}) < len(place)
        return twice and all(roots == axes[self.orbits.born[units[0]][:2]] for roots in axes.values())

    def _split(self) -> Iterator[str]:
        """What the orbits join and the algebra splits."""
        first: dict[int, tuple[Place, list[int]]] = {}
        for members, orbit in self._covered():
            place = self.growable(self.common(members))
            known, others = first.setdefault(orbit, (place, members))
            if place != known:
                texts = f"{self.show(others)} ({show(known)}) and {self.show(members)} ({show(place)})"
                yield f"the algebra splits {texts}, which are one orbit"

    def _cut(self) -> Iterator[str]:
        """Blocks that hold part of an atom that may grow."""
        for members, _ in self._covered():
            rows = [self.growable(self.place[unit]) for unit in members]
            for atom in sorted({a for row in rows for a, _ in row}):
                numbers = {tuple(k for a, k in row if a == atom) for row in rows}
                if len(numbers) > 1 and len(set(chain(*numbers))) < self.algebra.size[atom]:
                    yield f"{self.show(members)} are covered as one, but are only part of d{atom}, which may grow"

    def _covered(self) -> Iterator[tuple[list[int], int]]:
        """Every unit and every block, as its members and its orbit."""
        for unit in self.place:
            yield [unit], self.labels.find(unit)
        for label, block in self.labels.members.items():
            members = self.followed(block)
            if members:
                yield members, self.labels.find(label)

    def followed(self, block: Block) -> list[int]:
        """The units of a block that are followed."""
        return sorted(unit for unit in block if unit in self.place)

    def common(self, members: list[int]) -> Place:
        """Where all of them lie."""
        found = Counter(self.place[members[0]])
        for unit in members[1:]:
            found &= Counter(self.place[unit])
        return tuple(sorted(found.elements()))

    def show(self, units: list[int]) -> str:
        """Units as a person names them."""
        names = [f"{self.names[i]}[{':, ' * axis}{k}]" for i, axis, k in (self.orbits.born[u] for u in units[:4])]
        return " ".join(names) + (f" and {len(units) - 4} more" if len(units) > 4 else "")


def show(place: Place) -> str:
    """A place as text: `d3[0] d5[2]`."""
    return " ".join(f"d{a}[{k}]" for a, k in place) or "fixed"
