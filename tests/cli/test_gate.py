"""The gate: what a file asks is checked, every way to break it is told, and a broken file is refused with its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import fx

import fxgrow
from fxgrow.gate import BROKEN, ERROR, HELD, REFUSED, Row, as_json, as_junit
from fxgrow.gate import run as running
from fxgrow.plans import Plan

from .command import refused
from .gates import MODEL, NETS, WIDER, gate, models, rows

__all__ = ["models"]


@pytest.fixture(autouse=True)
def here(models: Path) -> Path:
    """The working directory: a folder with some models."""
    return models


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


def test_tolerances_are_per_output() -> None:
    text = 'baseline = "b.st"\n' + MODEL.replace("Plain", "Net")
    assert gate(text, "--record", "b.st").code == 0
    model = Path("nets.py")
    model.write_text(NETS.replace("shift=0.0", "shift=1e-6"))
    del sys.modules["nets"]
    limit = "[model.tolerance]\n\"output['logits']\" = 1e-3\n"
    assert gate(text + limit).code == 0
    assert gate(text + limit.replace("logits", "sum")).code == 1


@pytest.mark.parametrize(
    "growth", ['deepen = { after = "a", count = 100000 }', "grow = { deepen = { a = { count = 100000 }, b = {} } }"]
)
def test_more_blocks_than_can_be_meant_are_refused_at_once(growth: str) -> None:
    outcome = gate(MODEL + "[[growth]]\n" + growth, "--json", "out.json")
    assert outcome.code == 2
    assert "new blocks are more than one plan may insert" in outcome.out


@pytest.mark.parametrize(
    ("change", "said"),
    [(("3x4", "3x5"), "inputs = [...]"), (('["3x4"]', '["3x4", "3x4"]'), "inputs = [...]")],
)
def test_rows_speak_of_keys_of_the_file(change: tuple[str, str], said: str) -> None:
    outcome = gate(MODEL.replace(*change) + WIDER)
    assert outcome.code == 2
    assert said in outcome.out
    assert "example_inputs=" not in outcome.out


def test_rows_know_no_option_that_the_gate_does_not_have() -> None:
    torch.save({"a": object()}, "w.pt")
    outcome = gate(MODEL + 'weights = "w.pt"\n' + WIDER)
    assert outcome.code == 2
    assert "save only model.state_dict()" in outcome.out
    assert "--unsafe-pickle" not in outcome.out


MISSPELT = "tolerance = { nooutput = 1e-6 }\n"


@pytest.mark.parametrize("text", [MISSPELT + MODEL + WIDER, MODEL + MISSPELT + WIDER])
def test_a_tolerance_of_an_output_that_is_not_there_is_told(text: str) -> None:
    outcome = gate(text, "--json", "out.json")
    assert outcome.code == 2
    assert "a tolerance names 'nooutput', which is not an output of" in outcome.out
    assert "outputs are output" in outcome.out
    assert ERROR in {row["status"] for row in rows().values()}


def test_a_tolerance_for_all_models_needs_one_that_has_the_output() -> None:
    other = MODEL.replace("Plain", "Net").replace('"net"', '"two"')
    text = 'baseline = "b.st"\n' + MODEL + other
    assert gate(text, "--record", "b.st").code == 0
    assert gate("tolerance = { \"output['sum']\" = 1e-6 }\n" + text).code == 0
    assert gate(MISSPELT + text).code == gate(text + MISSPELT).code == 2


def test_reports_are_written_where_they_are_named_and_hold_any_text(here: Path) -> None:
    assert refused(gate(MODEL + WIDER, "--json", "nowhere/out.json"), "cannot be written")
    odd = Row("a", "b", ERROR, 0.1, (), "bad \x00\x1b <&> text\nmore")
    case = ElementTree.fromstring(as_junit([odd])).find("testcase/error")
    assert case is not None
    assert "<&>" in str(case.text)
    assert json.loads(as_json([odd]))["held"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--json gate.toml", "overwrite the gate file itself"),
        ("--record ./gate.toml", "overwrite the gate file itself"),
        ("--json b.st", "overwrite the baseline"),
        ("--junit w.safetensors", "overwrite the weights of net"),
        ("--json out --junit ./out", "overwrite --json"),
        ("--record .", "cannot be written"),
    ],
)
def test_reports_overwrite_nothing_that_counts(options: str, said: str) -> None:
    text = 'baseline = "b.st"\n' + MODEL + 'weights = "w.safetensors"\n' + WIDER
    assert refused(gate(text, *options.split()), said)
    assert Path("gate.toml").read_text() == text
    assert sorted(p.name for p in Path().iterdir() if p.name != "__pycache__") == ["gate.toml", "nets.py"]


def test_a_grown_model_that_fails_in_training_mode_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTraining(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("no training here")
            return super().forward(x)

    def wrong(plan: Plan, model: fx.GraphModule, *, checked: bool) -> fx.GraphModule:
        grown = fxgrow.apply(plan, model)
        grown.get_submodule("b").__class__ = NoTraining
        return grown

    monkeypatch.setattr(running, "grown_by", wrong)
    outcome = gate(MODEL + WIDER, "--json", "out.json")
    assert outcome.code == 1, outcome
    (row,) = rows().values()
    assert row["status"] == BROKEN
    assert "no training here" in row["message"]
