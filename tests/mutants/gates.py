"""Faults of the gate itself, and a watch that must notice each: a gate that cannot say no guards nothing."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from fxgrow.verification.certificate import FLOAT64_BOUND
from fxgrow.verification.compare import distance

from ..cli.command import fxgrow as run
from .lies import Plant

NAME = "watched_by_the_gate"
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.shift = nn.Linear(4, 8), nn.Linear(8, 3), shift

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.shift

def nudged(): return Net(1e-8)
def fails(): raise RuntimeError("no way")
"""
LENIENT = 1e4 * FLOAT64_BOUND
MODEL = f'[[model]]\nname = "net"\nfactory = "{NAME}:Net"\ninputs = ["3x4"]\n'
WIDER = '[[growth]]\nwiden = { node = "a" }\n'


def changed(**where: object) -> Plant:
    """Names of modules hold something else; in the keywords, `__` stands for a dot."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for place, value in where.items():
            path, _, name = place.replace("__", ".").rpartition(".")
            patch.setattr(importlib.import_module(f"fxgrow.{path}"), name, value)

    return plant


def nothing(*_: Any, **__: Any) -> float:
    """A comparison that finds no difference."""
    return 0.0


FAULTS: dict[str, Plant] = {
    "the comparison of models says 0": changed(verification__measure__apart=nothing),
    "the comparison with a baseline says 0": changed(gate__baseline__distance=nothing),
    "a tolerance 10,000 times as large": changed(verification__measure__FLOAT64_BOUND=LENIENT),
    "a tolerance 10,000 times as large for baselines": changed(gate__baseline__FLOAT64_BOUND=LENIENT),
    "the exit code of a changed function is 0": changed(cli__terminal__BROKEN=0),
    "the exit code of what cannot be checked is 0": changed(cli__terminal__MISUSED=0),
    "a baseline is compared with itself": changed(gate__baseline__distance=lambda a, _: distance(a, a)),
    "rows without differences": changed(gate__run__closest=lambda _: ()),
    "rows of growths are never run": changed(gate__run__differences_of=lambda *_: iter(())),
    "the fixture passes": changed(asserting__assert_function_preserved=nothing),
}
"""By what is wrong: how it is planted."""


def noticed() -> str:
    """What the gate says of some models that it should not say; empty if all is right."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder), _importable(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path(f"{NAME}.py").write_text(NETS)
        return next(_wrong(), "")


@contextlib.contextmanager
def _importable(folder: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before
        sys.modules.pop(NAME, None)


def _wrong() -> Iterator[str]:
    net, nudged = f"{NAME}:Net", f"{NAME}:nudged"
    if run("verify", net, net, "-i", "3x4").code != 0:
        yield "verify finds a difference between a model and itself"
    if run("verify", net, nudged, "-i", "3x4").code != 1:
        yield "verify misses a changed function"
    text = 'baseline = "b.st"\n' + MODEL
    if _gate(text, "--record", "b.st") != 0 or _gate(text) != 0:
        yield "the gate finds a difference between a model and what was recorded of it"
    if _gate(text.replace(net, nudged)) != 1:
        yield "the gate misses a function that is not the recorded one"
    if _gate(MODEL + WIDER) != 0:
        yield "the gate does not let a growth pass"
    if _gate(MODEL.replace(net, f"{NAME}:fails") + WIDER) != 2:
        yield "the gate passes over what it could not check"
    models = importlib.import_module(NAME)
    try:
        importlib.import_module("fxgrow.asserting").assert_function_preserved(
            models.Net(), models.nudged(), torch.zeros(3, 4)
        )
    except AssertionError:
        return
    yield "the fixture misses a changed function"


def _gate(text: str, *options: str) -> int:
    Path("gate.toml").write_text(text)
    return run("gate", "gate.toml", *options).code
