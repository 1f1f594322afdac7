"""The gate: what a file asks is checked, every way to break it is told, and a broken file is refused with its place."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file
from torch import fx

import fxgrow
from fxgrow.gate import BROKEN, ERROR, HELD, REFUSED, Row, as_json, as_junit, file, read_gate
from fxgrow.gate import run as running
from fxgrow.plan import Plan

from .command import fxgrow as run
from .command import refused

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


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with some models, the working directory of the test."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("nets", None)


def gate(text: str, *options: str) -> Any:
    """Run the gate on a file with this text."""
    Path("gate.toml").write_text(text)
    return run("gate", "gate.toml", *options)


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


BAD: dict[str, tuple[str, str]] = {
    "no TOML": ("seeds = [", "is no TOML"),
    "an unknown key": ("seed = [0]\n" + MODEL, "did you mean seeds?"),
    "an unknown key of a growth": (MODEL + WIDER.replace("factor", "facter"), "did you mean factor?"),
    "a flag as a seed": ("seeds = [true]\n" + MODEL, "True is no whole number"),
    "a seed beyond all numbers": (f"seeds = [{10**30}]\n" + MODEL, "is no whole number"),
    "a negative seed": ("seeds = [-1]\n" + MODEL, "-1 is no whole number"),
    "a seed that is NaN": ("seeds = [nan]\n" + MODEL, "nan is no whole number"),
    "no seeds": ("seeds = []\n" + MODEL, "it has 0 entries"),
    "too many seeds": (f"seeds = {[0] * 1001}\n" + MODEL, "it has 1001 entries"),
    "a tolerance that is NaN": ("tolerance = { output = nan }\n" + MODEL, "nan is no positive number"),
    "a tolerance that lets all pass": ("tolerance = { output = 2.0 }\n" + MODEL, "2.0 is no tolerance"),
    "an infinite factor": (MODEL + WIDER.replace("1.5", "inf"), "inf is no positive number"),
    "a text as a factor": (MODEL + WIDER.replace("1.5", '"2"'), "'2' is no positive number"),
    "no model": (WIDER, "there is none"),
    "no factory": ("[[model]]\nname = 'x'\n", "it has no factory"),
    "two of one name": (MODEL + MODEL, "two are called 'net'"),
    "two verbs": (MODEL + WIDER + 'deepen = { after = "a" }\n', "it has widen and deepen"),
    "no verb": (MODEL + "[[growth]]\nname = 'x'\n", "no verb"),
    "no node": (MODEL + "[[growth]]\nwiden = { factor = 2 }\n", "it names no node"),
    "a growth of an unknown model": (MODEL + WIDER + 'models = ["x"]\n', "no model 'x'"),
    "no size": (MODEL + '[[growth]]\ngrow = { widen = { a = "wide" } }\n', "'wide' is no size"),
    "a control code": (MODEL.replace('"net"', '"n\\u001b[2J"'), "is no text"),
    "a table as a text": (MODEL.replace('"nets:Plain"', "{ a = 1 }"), "is no text"),
    "a path upwards": (MODEL + 'weights = "../w.safetensors"\n', "leads out of the folder"),
    "an absolute path": (MODEL + 'weights = "/etc/passwd"\n', "leads out of the folder"),
    "a path through a link": (MODEL + 'weights = "link/w.safetensors"\n', "leads out of the folder"),
    "a baseline elsewhere": ('baseline = "../../b.safetensors"\n' + MODEL, "leads out of the folder"),
    "a folder elsewhere": (MODEL + 'grown = "../grown"\n', "leads out of the folder"),
    "nothing to check": (MODEL, "the gate checks nothing"),
    "no baseline": ('baseline = "b.safetensors"\n' + MODEL, "there is no baseline"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_place(case: str, here: Path) -> None:
    text, said = BAD[case]
    (here / "link").symlink_to(here.parent)
    outcome = gate(text, "--json", "out.json")
    assert refused(outcome, said), outcome
    assert not Path("out.json").exists()
    assert "nets" not in sys.modules or case in ("nothing to check", "no baseline")


def test_a_file_that_is_too_large_is_not_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LARGEST_FILE", 10)
    assert refused(gate(MODEL + WIDER), "no gate file has")


def test_paths_lead_out_only_on_the_users_word(here: Path) -> None:
    (here / "inner").mkdir()
    inner = here / "inner" / "gate.toml"
    inner.write_text(MODEL + 'weights = "../w.safetensors"\n' + WIDER)
    with pytest.raises(fxgrow.UsageError, match="leads out"):
        read_gate(inner)
    assert read_gate(inner, anywhere=True).models[0].weights == here / "w.safetensors"


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


def test_the_file_in_the_docs_can_be_copied(here: Path) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "gate.md"
    block = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    for text in (block, block.replace('\n# weights = "', '\nweights = "').replace("# baseline =", "baseline =")):
        Path("gate.toml").write_text(text)
        found = read_gate(here / "gate.toml")
        assert [g.verb for _, g in found.pairs] == ["widen", "deepen", "grow"]
    assert found.baseline == here / "baseline.safetensors"
