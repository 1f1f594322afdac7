"""The picture of the schemes: what it says of each is read off real growths, and it can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrow.models_zoo.demo.scheme_panels import NEW, OLD, OUTER, Panel, panels
from fxgrow.models_zoo.demo.scheme_picture import COLOURS, MEANING, WORDS, draw

SAID = {
    ("r2r", "Tanh"): (["even", "even", "odd"], ("writer", "reader")),
    ("net2net", "Tanh"): (["copy", "copy", "split"], ("writer", "reader")),
    ("zero", "Tanh"): (["free", "free", "zero"], ("reader",)),
    ("morphism", "Identity"): (["zero", "zero", "free"], ("writer",)),
    ("zero", "RMSNorm"): (["zero", "zero", "free", "zero", "free"], ("writer",)),
    ("mean", "LayerNorm"): (["mean", "mean", "free", "zero", "free"], ("writer",)),
}
"""States of new units from the writer to the reader, and what learns at the first step."""


@pytest.fixture(scope="module")
def shown() -> tuple[Panel, ...]:
    return panels()


def test_every_panel_shows_the_states_that_its_scheme_is_known_for(shown: tuple[Panel, ...]) -> None:
    found = {(p.scheme, p.between): ([m.states[-1][-1] for m in p.matrices], p.learning) for p in shown}
    assert found == SAID
    assert set(found) == set(WORDS)
    assert {s for p in shown for m in p.matrices for row in m.states for s in row} == set(COLOURS) == set(MEANING)


def test_old_units_stay_but_for_shares_and_scales(shown: tuple[Panel, ...]) -> None:
    for panel in shown:
        for matrix in panel.matrices:
            columns = len(matrix.values[0]) == NEW
            old = [row[:OLD] for row in matrix.states] if columns else matrix.states[:OLD]
            kept = {state for row in old for state in row}
            shared = matrix.title.startswith("scale") or (panel.scheme == "net2net" and columns)
            assert ("rescaled" in kept) is shared
            assert len(matrix.values) in (NEW, OUTER + 1)


def test_the_picture_can_be_drawn(shown: tuple[Panel, ...], tmp_path: Path) -> None:
    draw(shown, tmp_path / "schemes.png")
    assert (tmp_path / "schemes.png").stat().st_size > 50_000
