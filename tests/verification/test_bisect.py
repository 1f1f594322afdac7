"""The first difference of two models: planted faults, and the node that must be named for each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrow
from fxgrow.verification.node_report import LEGEND

from ..untouched import snapshot
from .bisect_cases import CASES, COUPLED, RESHAPED, Residual, original, shifted, wide


@pytest.mark.parametrize("name", CASES)
def test_the_right_node_is_named(name: str) -> None:
    case = CASES[name]
    before, after = case.grow()
    assert fxgrow.bisect(before, after) is None
    case.plant(after)
    after.recompile()
    taken = snapshot(before), snapshot(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    assert found.name == case.node
    assert any(text.startswith(case.suspect) for text in found.suspects) or not case.suspect
    assert found.difference > found.bound
    assert found.mode == ("training" if name == "a mode that differs" else "eval")
    assert all(n.verdict != "differs" for n in found.inputs)
    assert (snapshot(before), snapshot(after)) == taken


def test_the_text_draws_the_neighbourhood() -> None:
    before, after = COUPLED()
    shifted("norm1.running_var", 1)(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    lines = str(found).splitlines()
    assert lines[0] == "the models first differ at norm1 (eval mode, probe 'normal')"
    assert lines[1].startswith("  where    norm1, bisect_cases.py:")
    assert "F.relu(self.norm1(self.conv1(y)))" in lines[1]
    assert lines[3] == "  agrees   conv1, the last of 5 nodes"
    at = lines.index("")
    assert lines[at + 1].startswith("    = conv1  ")
    assert lines[at + 3].strip().startswith("! norm1  ")
    assert lines[at + 3].endswith("BatchNorm2d norm1")
    assert lines[at + 4].strip().startswith("└─▶ ! relu_1  ")
    assert lines[-1] == "  = agrees   ! differs"
    assert found.where is not None
    assert found.where.index[1] == 1


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_drawn(ending: str, tmp_path: Path) -> None:
    before, after = RESHAPED()
    shifted("adapt_skip_add.weight", 0, 1)(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    path = tmp_path / f"found.{ending}"
    found.picture(path)
    drawn = path.read_bytes()
    assert drawn.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_a_picture_without_matplotlib_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, after = COUPLED()
    shifted("norm1.running_var", 1)(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(fxgrow.UsageError, match="a picture needs matplotlib, which is not installed"):
        found.picture(tmp_path / "found.png")


def test_a_certificate_that_does_not_hold_says_where() -> None:
    before, after = COUPLED()
    assert fxgrow.verify(before, after).difference is None
    shifted("norm1.running_var", 1)(after)
    certificate = fxgrow.verify(before, after)
    assert certificate.difference is not None
    assert certificate.difference.name == "norm1"
    assert certificate.refusal().where.startswith("norm1, bisect_cases.py:")
    assert "the models first differ at norm1" in str(certificate)


def test_models_without_plans_are_compared_by_name_and_leading_channels() -> None:
    before, after = COUPLED()
    after.meta.clear()
    assert fxgrow.bisect(before, after) is None
    shifted("conv2.weight", 0, 0)(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    assert found.name == "conv2"
    assert found.suspects == ()
    assert found.notes == (
        "no plans lead from one model to the other: leading channels of nodes with the same name are compared",
    )


def test_plans_that_do_not_fit_are_said_not_to() -> None:
    before, after = COUPLED()
    after.meta["fxgrow"] = wide("scaled", "up")()[1].meta["fxgrow"]
    shifted("conv2.weight", 0, 0)(after)
    found = fxgrow.bisect(before, after)
    assert found is not None
    assert found.name == "conv2"
    assert "the plans could not be followed" in found.notes[0]


def test_a_model_that_returns_another_shape_differs_there() -> None:
    before, after = (
        fxgrow.trace(nn.Linear(3, 4), (torch.randn(2, 3),)),
        fxgrow.trace(nn.Linear(3, 2), (torch.randn(2, 3),)),
    )
    found = fxgrow.bisect(before, after)
    assert found is not None
    assert found.name == "output"
    assert found.where is None
    assert LEGEND["not compared"] in str(found)


def test_a_model_that_is_not_traced_is_refused() -> None:
    with pytest.raises(fxgrow.UsageError) as caught:
        fxgrow.bisect(Residual(), original("residual"))
    assert caught.value.kind is fxgrow.Kind.NOT_TRACEABLE
