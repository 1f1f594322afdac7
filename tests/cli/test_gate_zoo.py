"""The gate on the models of this project: every one of the zoo, grown as a whole, as a file of a user would ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fxgrow.models_zoo import ZOO

from .gates import gate, models

__all__ = ["models"]

FACTORIES = """
from fxgrow.models_zoo import ZOO

globals().update({name: entry.build for name, entry in ZOO.items()})
globals().update({f"{name}_inputs": entry.example_inputs for name, entry in ZOO.items()})
"""
MODEL = '[[model]]\nname = "{0}"\nfactory = "zoo_models:{0}"\ninputs = ["zoo_models:{0}_inputs"]\n'
GROWTH = '[[growth]]\nname = "everything"\ngrow = { widen = 2.0 }\n'
SHOWING = {name for name, entry in ZOO.items() if entry.refuses}
"""Models that are there to show a refusal."""


def test_the_gate_holds_for_every_model_of_the_zoo(models: Path) -> None:
    (models / "zoo_models.py").write_text(FACTORIES)
    wanted = [name for name in ZOO if name not in SHOWING]
    outcome = gate("\n".join(map(MODEL.format, wanted)) + GROWTH, "--json", "out.json")
    rows = json.loads(Path("out.json").read_text())["rows"]
    assert {row["model"]: row["status"] for row in rows} == dict.fromkeys(wanted, "held")
    assert outcome.code == 0


@pytest.mark.parametrize("name", ["refuse_spectrum", "refuse_window_pool", "refuse_index_list"])
def test_a_model_that_cannot_grow_is_told_and_does_not_hold(name: str, models: Path) -> None:
    (models / "zoo_models.py").write_text(FACTORIES)
    outcome = gate(MODEL.format(name) + GROWTH)
    assert outcome.code == 2
    assert "FXG" in outcome.out
