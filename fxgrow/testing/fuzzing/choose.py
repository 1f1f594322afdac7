"""Where random choices come from: one protocol for Hypothesis, which shrinks them, and for a plain seeded stream."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choose(Protocol):
    """Draws choices. What is simplest comes first: zero, the low end, the first of several."""

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        ...

    def pick(self, some: Sequence[T]) -> T:
        """One of several."""
        ...

    def seldom(self, percent: int) -> bool:
        """True in so many of a hundred cases; False is simpler."""
        ...


class Seeded:
    """Choices from a seed, independent of any global stream."""

    __slots__ = ("_random",)

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def pick(self, some: Sequence[T]) -> T:
        """One of several."""
        return self._random.choice(some)

    def seldom(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self._random.randrange(100) < percent


class Told:
    """Choices from bytes, and the simplest ones when they end. What each of them may be does not depend on the others,
    so that a change of one leaves the others' meaning as it is."""

    __slots__ = ("_left",)

    def __init__(self, told: bytes) -> None:
        self._left = iter(told)

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + next(self._left, 0) % (high - low + 1)

    def pick(self, some: Sequence[T]) -> T:
        """One of several."""
        return some[self.integer(0, len(some) - 1)]

    def seldom(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return next(self._left, 0) * 100 >= 256 * (100 - percent)
