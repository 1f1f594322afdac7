"""Paths may be given as text wherever they are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fxgrow
from fxgrow.gate import read_gate, record
from fxgrow.loading import build, is_saved, load, read_weights, restore, save
from fxgrow.loading.saved import check_folder, read_plan, read_saved

MODEL = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_saved_and_restored(tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), torch.randn(3, 4)
    traced = fxgrow.trace(model, (x,))
    grown, folder = fxgrow.widen(traced, "0"), kind(tmp_path / "grown")
    assert not is_saved(folder)
    check_folder(folder)
    plan, _ = save(traced, grown, folder, inputs=(x,))
    assert is_saved(folder)
    assert read_saved(folder).folder == Path(folder)
    assert read_plan(kind(plan)) == read_saved(folder).plan
    assert torch.equal(restore(model, folder)(x), grown(x))
    with pytest.raises(fxgrow.UsageError, match="does not contain a saved model"):
        restore(model, kind(tmp_path / "elsewhere"))


@pytest.mark.parametrize("kind", [str, Path])
def test_models_weights_and_gates_are_read(tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
    name = f"model_by_{kind.__name__.lower()}"
    (tmp_path / f"{name}.py").write_text(MODEL, encoding="utf-8")
    model = build(f"{name}:make", folder=kind(tmp_path))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    weights = kind(tmp_path / "weights.safetensors")
    assert read_weights(weights).keys() == model.state_dict().keys()
    loaded = load(f"{name}:make", weights=weights, inputs=["3x4"], folder=kind(tmp_path))
    assert loaded.weights == tmp_path / "weights.safetensors"
    save(loaded.model, fxgrow.widen(loaded.model, "0"), kind(tmp_path / "grown"), inputs=loaded.inputs or ())
    assert load(f"{name}:make", grown=kind(tmp_path / "grown"), folder=kind(tmp_path)).model.get_submodule("0")
    (tmp_path / "gate.toml").write_text(f'[[model]]\nfactory = "{name}:make"\ninputs = ["3x4"]\n', encoding="utf-8")
    gate = read_gate(kind(tmp_path / "gate.toml"))
    assert record(gate, kind(tmp_path / "baseline")) > 0
