"""What a model of the user's own raises while the command runs it is told in a line; a defect keeps its traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxgrow.cli import looking

from .command import fxgrow as run
from .command import refused

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

class Branching(Net):
    def forward(self, x): return super().forward(x) if x.sum() > 0 else x

def meta():
    with torch.device("meta"): return Net()

class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu, self.generator = nn.ReLU(), (n for n in range(3))

    def forward(self, x):
        return self.relu(x)

class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.held, self.b = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)
        self.held.generator = (n for n in range(3))

    def forward(self, x):
        return self.b(self.held(self.a(x)))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Embedding(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(x))

class Flags(Net):
    def forward(self, x, *, scale):
        return super().forward(x) * scale

class Strict(Net):
    def forward(self, x):
        torch._assert(x.shape[1] == 5, "wrong width")
        return super().forward(x)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with some models, importable for this test alone."""
    (tmp_path / "mine.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


OWN: dict[str, tuple[str, str]] = {
    "numbers beyond the vocabulary": ("widen mine:Words -n a -i 2x4:int64:9 -o w", "index out of range"),
    "no numbers": ("widen mine:Words -n a -i 2x4 -o w", ""),
    "one input too many": ("verify mine:Net mine:Net -i 2x4 -i 2x4", "FXG005"),
    "an argument by keyword only": ("verify mine:Flags mine:Flags -i 2x4", "scale"),
    "an assertion": ("verify mine:Strict mine:Strict -i 2x4", "wrong width"),
    "what cannot be copied": ("verify mine:Held mine:Held -i 2x4", "cannot"),
    "a module that cannot be copied": ("widen mine:Locked -n a -i 2x4 -o w", "cannot be copied"),
    "a branch, and no inputs": ("verify mine:Branching mine:Branching", "give --input, because"),
    "no values": ("widen mine:meta -n a -i 2x4 -o w", "meta"),
}
"""What a model of the user's own raises while it runs."""


@pytest.mark.parametrize("case", OWN)
def test_what_the_users_model_raises_is_a_line_too(case: str) -> None:
    line, said = OWN[case]
    outcome = run(*line.split())
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert "try  " in outcome.err
    assert "defect" not in outcome.err


def test_what_cannot_be_the_users_is_called_a_defect_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(looking, "survey", None)
    outcome = run("inspect", "mine:Net")
    assert outcome.code == 2
    assert outcome.err.startswith("Traceback")
    assert "a defect in fxgrow: TypeError" in outcome.err
    monkeypatch.setattr(looking, "survey", theirs)
    assert refused(run("inspect", "mine:Net"), "KeyError: 'lost' (test_cli_users.py:")


def test_a_plan_that_was_edited_is_no_defect() -> None:
    assert run("plan", "mine:Net", "-w", "2", "-o", "plan.json").code == 0
    data = json.loads(Path("plan.json").read_text())
    for edit in data["plan"]["tensors"]:
        edit["scale"] = 0.5
    Path("plan.json").write_text(json.dumps(data))
    outcome = run("apply", "plan.json", "mine:Net", "-o", "w")
    assert outcome.code == 2
    assert "scale 0.5, expected 1.0" in outcome.err
    assert "defect" not in outcome.err
    assert not Path("w").exists()
