"""Shrinks a pair that breaks a law with Hypothesis, starting from the bytes that the pair was drawn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...optional import optional
from .choose import CHOICES
from .draw import STEPS, Drawn
from .pairs import ROW, Breach
from .sketch import Sketch

if TYPE_CHECKING:
    from hypothesis import strategies as st

MOST_INPUTS = 3
ROUND = 240.0
"""Seconds after which a search is restarted from the smallest pair so far: Hypothesis gives up after 300, with a
warning."""
KEY = b"breach"
Again = Callable[[Drawn, Breach], Breach | None]
"""Returns the breach of the same law by the pair that is drawn from other bytes, None if the law holds."""


class _Enough(BaseException):
    """Stops a search of Hypothesis, which would treat an `Exception` as a failure."""


def drawn_blocks(*, steps: int = STEPS, growths: int = ROW) -> st.SearchStrategy[Drawn]:
    """Return a strategy for the bytes of models with at most `steps` steps, and of at most `growths` growths."""
    strategies = optional("hypothesis.strategies", extra="testing", what="drawing models and growths")
    block = strategies.binary(min_size=CHOICES, max_size=CHOICES)

    def several(least: int, most: int) -> Any:
        return strategies.lists(block, min_size=least, max_size=most).map(tuple)

    found: st.SearchStrategy[Drawn]
    found = strategies.builds(Drawn, several(1, MOST_INPUTS), several(0, steps), block, several(0, growths))
    return found


def shrink(breach: Breach, again: Again, *, tries: int, seconds: float) -> Breach:
    """Return the smallest breach that is found.

    Args:
        breach: the breach to start from.
        again: called for each smaller pair.
        tries: the largest number of pairs that are tested.
        seconds: the time limit, which is checked between two pairs.

    Raises:
        UsageError: Hypothesis is not installed.
    """
    search = _Search(breach, again, tries, time.monotonic() + seconds)
    while search.round():
        pass
    return search.smallest


class _Search:
    """The state of a search for the smallest breach."""

    def __init__(self, breach: Breach, again: Again, tries: int, end: float) -> None:
        self.smallest = breach
        self._again, self._left, self._end = again, tries, end
        self._turn = end
        self._known: dict[tuple[Sketch, tuple[bytes, ...]], Breach | None] = {}
        """The results for the pairs that were tested; different bytes often describe the same pair."""

    def round(self) -> bool:
        """Run one search of Hypothesis, and return whether another one may find a smaller pair."""
        hypothesis = optional("hypothesis", extra="testing", what="shrinking a breach")
        database = optional("hypothesis.database", extra="testing", what="shrinking a breach")
        start, self._turn = self.smallest, min(self._end, time.monotonic() + ROUND)
        examples = database.InMemoryExampleDatabase()
        # The extra choice makes Hypothesis shrink the example: it skips saved examples that it reads to the end.
        examples.save(KEY, database.choices_to_bytes([*_choices(start.drawn), False]))
        how = hypothesis.settings(
            database=examples,
            derandomize=False,
            deadline=None,
            max_examples=self._left + 1,
            phases=(hypothesis.Phase.reuse, hypothesis.Phase.shrink),
        )
        with suppress(_Enough, hypothesis.errors.NoSuchExample):
            hypothesis.find(drawn_blocks(), self._breaks, settings=how, database_key=KEY)
        return self.smallest is not start and self._left > 0 and time.monotonic() < self._end

    def _breaks(self, drawn: Drawn) -> bool:
        if time.monotonic() >= self._turn:
            raise _Enough
        key = drawn.sketch(), drawn.growths
        if key not in self._known:
            if not self._left:
                raise _Enough
            self._left -= 1
            self._known[key] = self._again(drawn, self.smallest)
        found = self._known[key]
        if found is not None and _order(drawn) < _order(self.smallest.drawn):
            self.smallest = found
        return found is not None


def _order(drawn: Drawn) -> tuple[int, tuple[bytes, ...]]:
    """Return the sort key: fewer blocks come first, then smaller bytes."""
    blocks = (*drawn.growths, *drawn.inputs, *drawn.steps, drawn.last)
    return len(blocks), blocks


def _choices(drawn: Drawn) -> Iterator[bool | bytes]:
    """Yield the choices by which `drawn_blocks` draws these bytes: whether a list goes on, and each block."""
    for blocks in (drawn.inputs, drawn.steps):
        for block in blocks:
            yield from (True, block)
        yield False
    yield drawn.last
    for block in drawn.growths:
        yield from (True, block)
    yield False
