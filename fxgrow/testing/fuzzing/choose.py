"""Sources of random choices: a seeded generator, or bytes, which Hypothesis can shrink."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
CHOICES = 16
"""Number of bytes in the block for one input, one step or one growth: as many as the longest of them needs. A block is
one choice for Hypothesis, which can therefore drop a step without changing the others."""


class Choose(Protocol):
    """Draws choices. The simplest choice comes first: zero, the low end, the first of several."""

    def integer(self, low: int, high: int) -> int:
        """Draw an integer, both ends included."""
        ...

    def pick(self, some: Sequence[T]) -> T:
        """Draw one of several objects."""
        ...

    def seldom(self, percent: int) -> bool:
        """Draw True in `percent` of 100 cases; False is the simpler choice."""
        ...


class Seeded:
    """Draws choices from a seed, independent of any global random state."""

    __slots__ = ("_random",)

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))

    def integer(self, low: int, high: int) -> int:
        """Draw an integer, both ends included."""
        return self._random.randint(low, high)

    def pick(self, some: Sequence[T]) -> T:
        """Draw one of several objects."""
        return self._random.choice(some)

    def seldom(self, percent: int) -> bool:
        """Draw True in `percent` of 100 cases."""
        return self._random.randrange(100) < percent

    def block(self) -> bytes:
        """Draw the bytes for one input, one step or one growth."""
        return self._random.randbytes(CHOICES)


class Told:
    """Reads choices from bytes, and takes the simplest ones when they end. Choices are independent of each other, so
    that changing one does not change the meaning of the others."""

    __slots__ = ("_left",)

    def __init__(self, told: bytes) -> None:
        self._left = iter(told)

    def integer(self, low: int, high: int) -> int:
        """Read an integer, both ends included."""
        return low + next(self._left, 0) % (high - low + 1)

    def pick(self, some: Sequence[T]) -> T:
        """Read one of several objects."""
        return some[self.integer(0, len(some) - 1)]

    def seldom(self, percent: int) -> bool:
        """Read True in `percent` of 100 cases."""
        return next(self._left, 0) * 100 >= 256 * (100 - percent)
