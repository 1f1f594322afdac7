"""Integer labels for units, and what two tensors say of each other's labels when they meet element by element.

A *plane* is an int64 tensor that can be broadcast to some value's shape; its entries say which unit an element belongs
to, 0 stands for no unit. It has size one along every axis along which it does not vary, so its shape tells what the
label depends on. A value has several planes: of features that were once `c × h × w`, one may say the channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from fxgrow.capture.program.program import Op, Value

Planes = list[Tensor]
Block = frozenset[int]


class Labels:
    """Units that were found to be one (union-find), and blocks: sets of units that another label covers.

    A channel that meets sixteen features is none of them: it is the block of the sixteen.
    """

    def __init__(self) -> None:
        self.parent = [0]
        self.members: dict[int, Block] = {}
        self.blocks: dict[Block, int] = {}

    def new(self) -> int:
        """A new label."""
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def find(self, label: int) -> int:
        """The label that stands for all that are one with this one."""
        while self.parent[label] != label:
            self.parent[label] = label = self.parent[self.parent[label]]
        return label

    def unite(self, a: int, b: int) -> None:
        """Two labels are one."""
        a, b = self.find(a), self.find(b)
        self.parent[max(a, b)] = min(a, b)

    def block(self, labels: Iterable[int]) -> int:
        """The label of a set of units: of several a label of their own, of one itself, of none 0."""
        units = frozenset(unit for label in labels if label for unit in self.members.get(label, (label,)))
        if len(units) < 2:
            return next(iter(units), 0)
        if units not in self.blocks:
            self.blocks[units] = made = self.new()
            self.members[made] = units
        return self.blocks[units]

    def slices(self, plane: Tensor) -> None:
        """Note what lies in each unit of each axis of a plane, as a block."""
        varying = [k for k, n in enumerate(plane.shape) if n > 1]
        if len(varying) > 1:
            for k in varying:
                self.project(plane, [k])

    def close(self) -> dict[Block, int]:
        """Unite blocks whose members are one by now; the label of every block, by what stands for its members."""
        while True:
            known: dict[Block, int] = {}
            changed = False
            for label, units in self.members.items():
                key = frozenset(map(self.find, units))
                other = next(iter(key)) if len(key) == 1 else known.setdefault(key, label)
                if self.find(other) != self.find(label):
                    self.unite(other, label)
                    changed = True
            if not changed:
                return {key: self.find(label) for key, label in known.items()}

    def relate(self, a: Sequence[int], b: Sequence[int]) -> bool:
        """Two labellings of the same elements: a label that covers whole labels of the other is their block.

        True if they are a mere renaming of each other wherever both say something.
        """
        of_a: dict[int, set[int]] = {}
        of_b: dict[int, set[int]] = {}
        for x, y in set(zip(a, b, strict=True)):
            if x and y:
                of_a.setdefault(x, set()).add(y)
                of_b.setdefault(y, set()).add(x)
        for here, there in ((of_a, of_b), (of_b, of_a)):
            for label, covered in here.items():
                if all(len(there[unit]) == 1 for unit in covered):
                    self.unite(label, self.block(covered))
        return all(len(some) == 1 for side in (of_a, of_b) for some in side.values())

    def project(self, plane: Tensor, keep: Sequence[int]) -> Tensor:
        """What a plane says along some axes only: the block of all its labels along the others."""
        drop = [k for k, n in enumerate(plane.shape) if n > 1 and k not in keep]
        if not drop:
            return plane
        stay = [k for k in range(plane.dim()) if k not in drop]
        rows = plane.permute(*stay, *drop).flatten(len(stay)) if stay else plane.reshape(1, -1)
        found = [self.block(set(row)) for row in rows.reshape(-1, rows.shape[-1]).tolist()]
        return torch.tensor(found).view([1 if k in drop else n for k, n in enumerate(plane.shape)])

    def meet(self, a: Tensor, b: Tensor) -> bool:
        """Relate two planes of one rank along the axes along which both vary; True if they say the same."""
        both = [k for k in range(a.dim()) if a.shape[k] > 1 and b.shape[k] > 1]
        if not both:
            return False
        alike = self.relate(*(self.project(p, both).flatten().tolist() for p in (a, b)))
        return alike and a.shape == b.shape

    def meet_all(self, sides: Sequence[Planes]) -> None:
        """Relate the planes of operands to each other."""
        for one, other in combinations(sides, 2):
            for a in one:
                for b in other:
                    self.meet(a, b)

    def tidy(self, planes: Planes) -> Planes:
        """Shrink planes to the axes along which they vary; join those that say the same or complete each other.

        A plane with a single label is dropped: nothing tells to which axis that label belongs.
        """
        kept: Planes = []
        for plane in map(shrink, planes):
            if plane.numel() < 2:
                continue
            for k, other in enumerate(kept):
                if other.shape == plane.shape and self.meet(other, plane):
                    kept[k] = torch.where(other != 0, other, plane)
                    break
            else:
                self.slices(plane)
                kept.append(plane)
        return kept


def shrink(plane: Tensor) -> Tensor:
    """A plane with size one along every axis along which it does not vary."""
    for k, n in enumerate(plane.shape):
        if n > 1 and bool((plane == plane.narrow(k, 0, 1)).all()):
            plane = plane.narrow(k, 0, 1)
    return plane


def place(plane: Tensor, at: Sequence[int], rank: int) -> Tensor:
    """A plane with its axes moved to places `at` (all different) among `rank` axes."""
    order = sorted(range(len(at)), key=at.__getitem__)
    shape = [1] * rank
    for k, n in zip(at, plane.shape, strict=True):
        shape[k] = n
    return plane.permute(order).reshape(shape)


def split(plane: Tensor, at: int, groups: int) -> Tensor:
    """Axis `at` as (group, rest)."""
    return plane.unsqueeze(at) if plane.shape[at] == 1 else plane.unflatten(at, (groups, -1))


def merge(plane: Tensor, at: int, sizes: tuple[int, int]) -> Tensor:
    """Axes `at` and `at` + 1, of these sizes, as one."""
    if plane.shape[at] * plane.shape[at + 1] == 1:
        return plane.squeeze(at)
    return plane.expand(*plane.shape[:at], *sizes, *plane.shape[at + 2 :]).flatten(at, at + 1)


def narrow(plane: Tensor, at: int, start: int, length: int) -> Tensor:
    """Part of axis `at`, along which the plane need not vary."""
    return plane if plane.shape[at] == 1 else plane.narrow(at, start, length)


def scattered(plane: Tensor, at: int, rows: Tensor, size: int) -> Tensor:
    """A plane whose units along axis `at` are put at some of `size` places, no units at the others."""
    shape = [size if k == at else n for k, n in enumerate(plane.shape)]
    return plane.new_zeros(shape).index_copy_(at, rows, plane)


class Labelling(Protocol):
    """The labels of a program while it is walked, as the operators of one family need them."""

    labels: Labels

    def of(self, value: Value) -> Planes:
        """The planes of a value."""

    def rearrange(self, op: Op, planes: Planes | None = None) -> list[Planes]:
        """Run the operator itself on labels."""

    def added(self, rank: int, *sides: Planes) -> Planes:
        """Planes of a broadcast result."""

    def contract(self, left: tuple[Planes, list[str]], right: tuple[Planes, list[str]], out: list[str]) -> Planes:
        """Planes of a sum of products."""
