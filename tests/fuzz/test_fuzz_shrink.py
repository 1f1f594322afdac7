"""Hypothesis shrinks what the fuzzer has drawn: it starts from the very bytes, and keeps to its limits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fxgrow.testing.fuzz import fuzz, smallest
from fxgrow.testing.fuzzing import pairs
from fxgrow.testing.fuzzing.choose import Seeded
from fxgrow.testing.fuzzing.draw import Drawn, draw_blocks
from fxgrow.testing.fuzzing.draw_growths import Sites, placed
from fxgrow.testing.fuzzing.growths import Deepening, Widening
from fxgrow.testing.fuzzing.pairs import Breach
from fxgrow.testing.fuzzing.promises import LawBroken
from fxgrow.testing.fuzzing.shrink import shrink

SEEDS = range(4)
LONG = 100.0
"""Seconds: more than any of these searches takes."""


def breach_of(drawn: Drawn) -> Breach:
    """A breach of no particular law."""
    return Breach(drawn.sketch(), (), "a law", "is broken", drawn)


def drawn(seed: int) -> Drawn:
    """A model with one to three growths."""
    seeded = Seeded(seed)
    return replace(draw_blocks(seeded), growths=tuple(seeded.block() for _ in range(1 + seed % 3)))


def asked(seen: list[Drawn], breaks: Callable[[Drawn], bool]) -> Callable[[Drawn, Breach], Breach | None]:
    """A law, with a list of what it is asked of."""

    def again(one: Drawn, _: Breach) -> Breach | None:
        seen.append(one)
        return breach_of(one) if breaks(one) else None

    return again


@pytest.mark.parametrize("seed", SEEDS)
def test_the_search_starts_from_the_bytes_that_were_drawn(seed: int) -> None:
    start, seen = drawn(seed), list[Drawn]()
    shrink(breach_of(start), asked(seen, lambda one: one == start), tries=3, seconds=LONG)
    assert seen[0] == start


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_that_are_not_needed_are_left_out(seed: int) -> None:
    start = drawn(seed)
    needed = start.sketch().steps[0].op

    def breaks(one: Drawn) -> bool:
        return bool(one.growths) and any(step.op == needed for step in one.sketch().steps)

    found = shrink(breach_of(start), asked([], breaks), tries=300, seconds=LONG).drawn
    assert (len(found.inputs), len(found.growths)) == (1, 1)
    assert len(found.steps) <= 1


def test_no_more_pairs_are_looked_at_than_allowed_and_none_twice() -> None:
    start, seen = drawn(5), list[Drawn]()
    shrink(breach_of(start), asked(seen, lambda one: bool(one.steps)), tries=7, seconds=LONG)
    assert len(seen) == 7
    assert len({(one.sketch(), one.growths) for one in seen}) == 7


def test_a_search_without_time_ends_with_what_it_started_from() -> None:
    start, seen = breach_of(drawn(5)), list[Drawn]()
    assert shrink(start, asked(seen, lambda _: True), tries=100, seconds=0.0) is start
    assert not seen


def test_an_interruption_ends_the_search() -> None:
    def interrupted(*_: object) -> Breach | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink(breach_of(drawn(5)), interrupted, tries=100, seconds=LONG)


def test_a_breach_that_does_not_come_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxgrow.testing.fuzz.redrawn", lambda *_, **__: None)
    assert smallest(breach_of(drawn(5))).text == "NOT REPRODUCED BY ITSELF: is broken"


def test_a_growth_follows_its_place_when_steps_are_left_out() -> None:
    sites = Sites(inner=("conv0", "linear3.a", "linear5.a"), outer=(), calls=("conv0", "relu_2"))
    wide, deep = Widening(nodes=("conv0",), to=9), Deepening(name="conv0")
    found = list(placed([wide], [Widening(nodes=("linear7.a",))], sites))
    assert found == [(wide,), *((Widening(nodes=(place,)),) for place in ("linear5.a", "linear3.a"))]
    assert list(placed([wide, deep], [Deepening(name="relu_9")], sites)) == [
        (wide, deep),
        (wide, Deepening(name="relu_2")),
    ]
    assert list(placed([wide], [deep], sites)) == [(wide,)]
    assert list(placed([], [deep], sites)) == [()]


# -- without Hypothesis, and interrupted: what was drawn is saved ------------------------------------------------------


@pytest.fixture
def broken_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model breaks a law, whatever is asked of it."""

    def breaks(*_: object, **__: object) -> None:
        raise LawBroken("a law", "is broken")

    monkeypatch.setattr(pairs, "subject", breaks)


@pytest.mark.usefixtures("broken_always")
def test_a_breach_is_saved_as_it_was_drawn_where_hypothesis_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)  # Python then says that it is not installed
    with caplog.at_level("INFO", "fxgrow.fuzz"):
        assert fuzz(1, seconds=LONG, models=1, folder=tmp_path).breaches == 1
    (script,) = tmp_path.glob("breach_*.py")
    assert str(script) in caplog.text
    assert "pip install 'fxgrow[testing]'" in caplog.text


@pytest.mark.usefixtures("broken_always")
def test_a_breach_is_saved_before_it_is_shrunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fxgrow.testing.fuzz.redrawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fuzz(1, seconds=LONG, models=1, folder=tmp_path)
    assert len(list(tmp_path.glob("breach_*.py"))) == 1
