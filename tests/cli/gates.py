"""Small models and gate files for the tests of the gate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .command import Outcome
from .command import fxgrow as run

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=8, shift=0.0):
        super().__init__()
        self.a, self.b, self.shift = nn.Linear(4, hidden), nn.Linear(hidden, 3), shift

    def forward(self, x):
        y = torch.relu(self.a(x))
        return {"sum": y.mean(), "logits": self.b(y) + self.shift}

class Plain(Net):
    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.shift

def nudged(): return Plain(shift=1e-7)
def fails(): raise RuntimeError("no way")
"""
MODEL = '[[model]]\nname = "net"\nfactory = "nets:Plain"\ninputs = ["3x4"]\n'
WIDER = '[[growth]]\nname = "wider"\nwiden = { node = "a", factor = 1.5 }\n'


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with some models, the working directory of the test."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("nets", None)


def gate(text: str, *options: str) -> Outcome:
    """Run the gate on a file with this text."""
    Path("gate.toml").write_text(text)
    return run("gate", "gate.toml", *options)


def rows(path: str = "out.json") -> dict[tuple[str, str], Any]:
    """The rows of a JSON report."""
    found = json.loads(Path(path).read_text())["rows"]
    return {(row["model"], row["growth"]): row for row in found}
