"""Gate files are data: whatever is wrong with one is told with its place, before anything is imported or written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fxgrow
from fxgrow.gate import file, read_gate

from .command import refused
from .gates import MODEL, WIDER, gate, models

__all__ = ["models"]


@pytest.fixture(autouse=True)
def here(models: Path) -> Path:
    """The working directory: a folder with some models."""
    return models


BAD: dict[str, tuple[str, str]] = {
    "no TOML": ("seeds = [", "is not TOML"),
    "an unknown key": ("seed = [0]\n" + MODEL, "did you mean seeds?"),
    "an unknown key of a growth": (MODEL + WIDER.replace("factor", "facter"), "did you mean factor?"),
    "a flag as a seed": ("seeds = [true]\n" + MODEL, "True is not an integer"),
    "a seed beyond all numbers": (f"seeds = [{10**30}]\n" + MODEL, "is not an integer"),
    "a negative seed": ("seeds = [-1]\n" + MODEL, "-1 is not an integer"),
    "a seed that is NaN": ("seeds = [nan]\n" + MODEL, "nan is not an integer"),
    "no seeds": ("seeds = []\n" + MODEL, "it has 0 entries"),
    "too many seeds": (f"seeds = {[0] * 1001}\n" + MODEL, "it has 1001 entries"),
    "a tolerance that is NaN": ("tolerance = { output = nan }\n" + MODEL, "nan is not a positive number"),
    "a tolerance that lets all pass": ("tolerance = { output = 2.0 }\n" + MODEL, "2.0 is not a tolerance"),
    "a tolerance of 100 %": ("tolerance = { output = 1 }\n" + MODEL, "below 1"),
    "an infinite factor": (MODEL + WIDER.replace("1.5", "inf"), "inf is not a positive number"),
    "a text as a factor": (MODEL + WIDER.replace("1.5", '"2"'), "'2' is not a positive number"),
    "no model": (WIDER, "the file has none"),
    "no factory": ("[[model]]\nname = 'x'\n", "it has no factory"),
    "two of one name": (MODEL + MODEL, "two have the name 'net'"),
    "two verbs": (MODEL + WIDER + 'deepen = { after = "a" }\n', "it has widen and deepen"),
    "no verb": (MODEL + "[[growth]]\nname = 'x'\n", "none of widen, deepen and grow"),
    "no node": (MODEL + "[[growth]]\nwiden = { factor = 2 }\n", "it has no node"),
    "a growth of an unknown model": (MODEL + WIDER + 'models = ["x"]\n', "no model 'x'"),
    "no size": (MODEL + '[[growth]]\ngrow = { widen = { a = "wide" } }\n', "'wide' is not a size"),
    "a control code": (MODEL.replace('"net"', '"n\\u001b[2J"'), "is not a non-empty printable string"),
    "a table as a text": (MODEL.replace('"nets:Plain"', "{ a = 1 }"), "is not a non-empty printable string"),
    "a path upwards": (MODEL + 'weights = "../w.safetensors"\n', "is outside the folder"),
    "an absolute path": (MODEL + 'weights = "/etc/passwd"\n', "is outside the folder"),
    "a path through a link": (MODEL + 'weights = "link/w.safetensors"\n', "is outside the folder"),
    "a baseline elsewhere": ('baseline = "../../b.safetensors"\n' + MODEL, "is outside the folder"),
    "a folder elsewhere": (MODEL + 'grown = "../grown"\n', "is outside the folder"),
    "the name of the baseline": (MODEL + WIDER.replace("wider", "baseline"), "the name 'baseline' is reserved"),
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
    assert refused(gate(MODEL + WIDER), "too many for a gate file")


def test_paths_lead_out_only_on_the_users_word(here: Path) -> None:
    (here / "inner").mkdir()
    inner = here / "inner" / "gate.toml"
    inner.write_text(MODEL + 'weights = "../w.safetensors"\n' + WIDER)
    with pytest.raises(fxgrow.UsageError, match="is outside the folder"):
        read_gate(inner)
    assert read_gate(inner, anywhere=True).models[0].weights == here / "w.safetensors"


def test_the_file_in_the_docs_can_be_copied(here: Path) -> None:
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "gate.md"
    block = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    for text in (block, block.replace('\n# weights = "', '\nweights = "').replace("# baseline =", "baseline =")):
        Path("gate.toml").write_text(text)
        found = read_gate(here / "gate.toml")
        assert [g.verb for _, g in found.pairs] == ["widen", "deepen", "grow"]
    assert found.baseline == here / "baseline.safetensors"
