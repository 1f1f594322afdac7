"""The gate: what a file asks is checked, every way to break it is told, and a broken file is refused with its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file
from torch import fx

import fxgrow
from fxgrow.gate import BROKEN, ERROR, HELD, REFUSED, Row, as_json, as_junit
from fxgrow.gate import run as running
from fxgrow.plan import Plan

from .command import fxgrow as run
from .command import refused
from .gates import MODEL, NETS, WIDER, gate, models

__all__ = ["models"]


@pytest.fixture(autouse=True)
def here(models: Path) -> Path:
    """The working directory: a folder with some models."""
    return models


def rows(path: str = "out.json") -> dict[tuple[str, str], Any]:
    """The rows of a JSON report."""
    found = json.loads(Path(path).read_text())["rows"]
    return {(row["model"], row["growth"]): row for row in found}


SEVERAL = """
seeds = [0, 1]

[[model]]
name = "net"
factory = "nets:Plain"
inputs = ["3x4"]

[[model]]
name = "resnet"
factory = "fxgrow.models_zoo:ResNet"
inputs = ["2x1x8x8"]

[[growth]]
name = "wider"
models = ["net"]
widen = { node = "a", factor = 1.5 }

[[growth]]
name = "deeper"
models = ["resnet"]
deepen = { after = "layer3", block = "basic" }

[[growth]]
name = "whole"
models = ["resnet"]
grow = { widen = { "layer*.conv1" = "to:48", "layer4.conv1" = 1.5 }, deepen = { layer1 = { hidden = 8 } }, seed = 3 }
"""


def test_every_model_goes_with_every_growth_that_is_meant_for_it() -> None:
    outcome = gate(SEVERAL, "--json", "out.json")
    assert outcome.code == 0, outcome
    assert "3 held" in outcome.out
    found = rows()
    assert list(found) == [("net", "wider"), ("resnet", "deeper"), ("resnet", "whole")]
    assert {d["dtype"] for d in found["net", "wider"]["differences"]} == {"float32", "float64"}
    assert all(d["error"] <= d["limit"] for row in found.values() for d in row["differences"])


def test_a_growth_that_breaks_the_function_is_exit_code_1_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(plan: Plan, model: fx.GraphModule, *, checked: bool) -> fx.GraphModule:
        grown = fxgrow.apply(plan, model)
        with torch.no_grad():
            grown.get_parameter("b.weight")[2, 9] += 0.5
        return grown

    monkeypatch.setattr(running, "grown_by", wrong)
    outcome = gate(MODEL + WIDER, "--junit", "out.xml", "--json", "out.json")
    assert outcome.code == 1
    assert "first differ at b" in outcome.out
    assert rows()["net", "wider"]["status"] == BROKEN
    suite = ElementTree.parse("out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "output differs by" in str(failure.get("message"))


def test_what_cannot_be_checked_is_exit_code_2_and_the_rest_goes_on() -> None:
    other = '[[model]]\nname = "broken"\nfactory = "nets:fails"\n'
    output = '[[growth]]\nname = "output"\nmodels = ["net"]\nwiden = { node = "b" }\n'
    outcome = gate(MODEL + other + WIDER + output, "--json", "out.json", "--junit", "out.xml")
    assert outcome.code == 2
    assert {key: row["status"] for key, row in rows().items()} == {
        ("net", "wider"): HELD,
        ("net", "output"): REFUSED,
        ("broken", "wider"): ERROR,
    }
    assert "no way" in rows()["broken", "wider"]["message"]
    assert ElementTree.parse("out.xml").getroot().get("errors") == "2"


@pytest.mark.slow
def test_several_processes_find_the_same() -> None:
    second = WIDER.replace('"wider"', '"twice"').replace("1.5", "2")
    assert gate(MODEL + WIDER + second, "--json", "one.json").code == 0
    assert gate(MODEL + WIDER + second, "--json", "two.json", "--jobs", "2").code == 0
    one, two = rows("one.json"), rows("two.json")
    assert list(one) == list(two)
    assert all(one[key]["differences"] == two[key]["differences"] for key in one)


def test_a_baseline_stands_for_the_model_that_was() -> None:
    text = 'seeds = [0]\nbaseline = "base.safetensors"\n' + MODEL
    assert gate(text, "--record", "base.safetensors").code == 0
    assert gate(text, "--json", "out.json").code == 0
    assert list(rows()) == [("net", "baseline")]
    assert run("widen", "nets:Plain", "-n", "a", "-o", "grown", "-i", "3x4").code == 0
    assert gate(text + 'grown = "grown"\n').code == 0  # the model is replaced by a grown one
    nudged = text.replace("nets:Plain", "nets:nudged")
    outcome = gate(nudged)
    assert outcome.code == 1
    assert "output differs by" in outcome.out
    assert gate("tolerance = { output = 1e-4 }\n" + nudged).code == 0


@pytest.mark.parametrize("change", [("seeds = [0]", "seeds = [3]"), ("3x4", "5x4"), ('"net"', '"other"')])
def test_a_baseline_of_something_else_is_told(change: tuple[str, str]) -> None:
    text = 'seeds = [0]\nbaseline = "base.safetensors"\n' + MODEL
    assert gate(text, "--record", "base.safetensors").code == 0
    outcome = gate(text.replace(*change))
    assert outcome.code == 2
    assert "other seeds or inputs" in outcome.out or "holds no model other" in outcome.out


def test_tolerances_are_per_output() -> None:
    text = 'baseline = "b.st"\n' + MODEL.replace("Plain", "Net")
    assert gate(text, "--record", "b.st").code == 0
    model = Path("nets.py")
    model.write_text(NETS.replace("shift=0.0", "shift=1e-6"))
    del sys.modules["nets"]
    limit = "[model.tolerance]\n\"output['logits']\" = 1e-3\n"
    assert gate(text + limit).code == 0
    assert gate(text + limit.replace("logits", "sum")).code == 1


def test_reports_are_written_where_they_are_named_and_hold_any_text(here: Path) -> None:
    assert refused(gate(MODEL + WIDER, "--json", "nowhere/out.json"), "cannot be written")
    odd = Row("a", "b", ERROR, 0.1, (), "bad \x00\x1b <&> text\nmore")
    case = ElementTree.fromstring(as_junit([odd])).find("testcase/error")
    assert case is not None
    assert "<&>" in str(case.text)
    assert json.loads(as_json([odd]))["held"] is False


def test_a_damaged_baseline_is_told(here: Path) -> None:
    Path("b.st").write_bytes(b"\xff" * 100)
    assert refused(gate('baseline = "b.st"\n' + MODEL), "cannot be read")
    save_file({"x": torch.zeros(1)}, "b.st")
    assert refused(gate('baseline = "b.st"\n' + MODEL), "no baseline of this version")
