"""Plans with random damage: each gets an error of fxgrow's own, or is harmless. None runs code or is half applied."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fxgrow
from fxgrow.loading import grown_by
from fxgrow.models_zoo import ResNet

CODE = "x, y=__import__('pathlib').Path('planted').touch()"
VALUES: tuple[Any, ...] = (
    0,
    -1,
    7,
    2**39,
    10**30,
    1.5,
    float("nan"),
    "",
    "../..",
    CODE,
    "os.system",
    "forward",
    "class",
    None,
    [],
    {},
    [[1]],
)
"""What is put in the place of something else."""
DAMAGED = 300


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested lists and objects."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("seed", range(2))
def test_damage_is_an_error_or_harmless(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = random.Random(seed)
    inputs = (torch.zeros(2, 1, 8, 8),)
    model = fxgrow.trace(ResNet().eval(), inputs)
    plan = fxgrow.plan_grow(model, widen={"layer2.conv2": 2.0}, deepen={"layer3": "basic"}, skip="reshape")
    text, code = plan.to_json(), model.code
    names = set(model.state_dict())
    refusals = 0
    for _ in range(DAMAGED):
        data = json.loads(text)
        data["plan"]["model"] = data["plan"]["then"][0]["model"] = ""  # else the digest of the model settles it
        *above, last = draw.choice([p for p in places(data["plan"]) if p[0] not in ("proof", "notes", "title")])
        inner = data["plan"]
        for key in above:
            inner = inner[key]
        inner[last] = draw.choice(VALUES)
        try:
            grown = grown_by(fxgrow.Plan.from_json(json.dumps(data)), model)
        except fxgrow.UsageError:
            refusals += 1
            continue
        torch.testing.assert_close(grown(*inputs), model(*inputs))
    assert refusals > DAMAGED / 2
    assert model.code == code
    assert set(model.state_dict()) == names
    assert list(tmp_path.iterdir()) == []
