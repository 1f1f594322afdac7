"""The baseline of the gate: a changed model is found, a grown one passes, another or a damaged record is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fxgrow.gate import sampling

from .command import fxgrow as run
from .command import refused
from .gates import MODEL, NETS, gate, models, rows

__all__ = ["models"]


@pytest.fixture(autouse=True)
def here(models: Path) -> Path:
    """The working directory: a folder with some models."""
    return models


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
    assert "other seeds or inputs" in outcome.out or "does not contain a model other" in outcome.out


WIDE = """
def wide(changed=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 30000))
    if changed:  # two classes of three
        with torch.no_grad():
            model[2].weight[1::3] *= -5
            model[2].weight[2::3] = 0
    return model

def other(): return wide(True)
"""


def test_the_sample_of_a_large_output_is_no_single_column() -> None:
    Path("nets.py").write_text(NETS + WIDE)
    text = 'baseline = "b.st"\n[[model]]\nname = "m"\nfactory = "nets:wide"\ninputs = ["5x4"]\n'
    assert gate(text, "--record", "b.st").code == 0
    assert gate(text).code == 0
    assert gate(text.replace("nets:wide", "nets:other")).code == 1


WORDS = """
def words(row=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    if row is not None:
        with torch.no_grad():
            model[0].weight[row] += 1
    return model

def other(): return words(7)
"""


def test_every_row_of_an_embedding_is_looked_up() -> None:
    Path("nets.py").write_text(NETS + WORDS)
    text = 'baseline = "b.st"\n[[model]]\nname = "m"\nfactory = "nets:words"\ninputs = ["8x16:int64"]\n'
    assert gate(text, "--record", "b.st").code == 0
    assert gate(text).code == 0
    assert gate(text.replace("nets:words", "nets:other")).code == 1


STRICT = """
class Words(nn.Embedding):
    def forward(self, x): return super().forward(x + 5)
def words(): return Words(10, 3)

class Silent(Net):
    def forward(self, x): return {"shape": "none"}
"""


@pytest.mark.parametrize(("factory", "said"), [("words", "cannot run on these inputs"), ("Silent", "no tensors")])
def test_what_cannot_be_recorded_is_told(factory: str, said: str) -> None:
    Path("nets.py").write_text(NETS + STRICT)
    text = f'baseline = "b.st"\n[[model]]\nfactory = "nets:{factory}"\ninputs = ["2x4:int64:9"]\n'
    assert refused(gate(text, "--record", "b.st"), said)
    assert not Path("b.st").exists()


def test_samples_are_taken_at_random_places_without_repetition() -> None:
    found = sampling.places(3 * sampling.MOST)
    assert len(found) == len(set(found.tolist())) == sampling.MOST
    assert found.equal(found.sort().values)
    assert {int(n) for n in found % 3} == {0, 1, 2}
    assert sampling.sample(torch.arange(6.0).reshape(2, 3)).tolist() == [0, 1, 2, 3, 4, 5]


def test_samples_of_other_places_are_an_error_and_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nets.py").write_text(NETS + WIDE)
    text = 'baseline = "b.st"\n[[model]]\nname = "m"\nfactory = "nets:wide"\ninputs = ["5x4"]\n'
    assert gate(text, "--record", "b.st").code == 0
    monkeypatch.setattr(sampling, "_SEED", 1)
    sampling.places.cache_clear()
    outcome = gate(text)
    sampling.places.cache_clear()
    assert outcome.code == 2
    assert "sampled with other random numbers" in outcome.out


def test_a_damaged_baseline_is_told(here: Path) -> None:
    Path("b.st").write_bytes(b"\xff" * 100)
    assert refused(gate('baseline = "b.st"\n' + MODEL), "cannot be read")
    save_file({"x": torch.zeros(1)}, "b.st")
    assert refused(gate('baseline = "b.st"\n' + MODEL), "not recorded by this version")
    save_file({"x": torch.zeros(1)}, "b.st", {"format": "fxgrow gate baseline 1"})
    assert refused(gate('baseline = "b.st"\n' + MODEL), "record it again")


def test_where_nothing_is_finite_no_baseline_is_recorded(here: Path) -> None:
    (here / "blank.py").write_text("from nets import Plain\n\ndef blank(): return Plain(shift=float('nan'))\n")
    text = 'seeds = [0]\nbaseline = "base.safetensors"\n' + MODEL.replace("nets:Plain", "blank:blank")
    assert refused(gate(text, "--record", "base.safetensors"), "no finite entry")
