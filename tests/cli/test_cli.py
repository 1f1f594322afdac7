"""The command: models grown, saved, restored and compared without Python; whatever is wrong told in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fxgrow
from fxgrow.loading import restore
from fxgrow.models_zoo import ResNet
from fxgrow.verification.compare import seeded

from .command import fxgrow as run
from .command import refused

RESNET = ("fxgrow.models_zoo:ResNet", "-i", "2x1x8x8")
COMMANDS = ("inspect", "widen", "deepen", "grow", "plan", "apply", "verify", "gate")
MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        self.a, self.b, self.shift = nn.Linear(4, 8), nn.Linear(8, 3), shift

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.shift

class Empty(nn.Module):
    def forward(self, x): return x

def shifted(): return Net(0.01)
def needs(width): return Net()
def fails(): raise RuntimeError("no\\nway")
def number(): return 3
def leaves(): raise SystemExit(0)
def inputs(): return torch.ones(2, 4)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with some models, importable for this test alone."""
    (tmp_path / "mine.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def resnet() -> nn.Module:
    """The model that the command builds from `RESNET`."""
    with seeded(0):
        return ResNet().eval()


def identical(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_that_factories_are_code(command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"Example: fxgrow {command} " in outcome.out
    assert "code" in outcome.out


def test_inspect_says_what_can_grow() -> None:
    outcome = run("inspect", *RESNET)
    assert outcome.code == 0
    assert "layer2.conv1" in outcome.out
    assert "residual joins" in outcome.out


def test_widen_saves_what_the_library_makes(here: Path) -> None:
    outcome = run("widen", *RESNET, "--node", "layer2.conv1", "--to", 48, "--out", "w")
    assert outcome.code == 0, outcome.err
    assert "same function" in outcome.out
    assert sorted(p.name for p in (here / "w").iterdir()) == ["model.safetensors", "plan.json"]
    expected = fxgrow.widen(fxgrow.trace(resnet(), (torch.zeros(2, 1, 8, 8),)), "layer2.conv1", to=48)
    again = restore(ResNet().eval(), here / "w")  # other random weights: only the class counts
    assert identical(again, expected)
    assert run("verify", "fxgrow.models_zoo:ResNet", "w").code == 0


def test_growths_go_on_from_a_saved_model(here: Path) -> None:
    assert run("widen", *RESNET, "-n", "layer2.conv1", "-o", "one", "--no-verify").code == 0
    outcome = run("deepen", "fxgrow.models_zoo:ResNet", "--grown", "one", "--after", "layer3", "-o", "two")
    assert outcome.code == 0, outcome.err
    two = restore(ResNet().eval(), here / "two")  # the folder holds both growths
    assert two.get_parameter("layer2.conv1.weight").shape[0] == 64
    assert "layer3_deeper1" in dict(two.named_modules())
    assert run("verify", "fxgrow.models_zoo:ResNet", "two").code == 0


def test_a_plan_is_kept_and_applied_elsewhere_with_identical_bits(here: Path) -> None:
    wishes = ("--widen", "layer*.conv1=1.5", "--widen", "layer4.*=keep", "--deepen", "layer3=basic")
    planned = run("plan", *RESNET, *wishes, "--out", "plan.json")
    assert planned.code == 0, planned.err
    assert "why the function stays the same" in planned.out
    assert run("grow", *RESNET, *wishes, "-o", "grown", "--no-verify").code == 0
    assert run("apply", "plan.json", *RESNET, "-o", "applied").code == 0
    a, b = (load_file(here / name / "model.safetensors") for name in ("grown", "applied"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert json.loads((here / "grown" / "plan.json").read_text())["plan"]["then"]


def test_a_dry_run_writes_nothing(here: Path) -> None:
    before = sorted(here.iterdir())
    outcome = run("widen", *RESNET, "-n", "layer2.conv1", "--out", "w", "--dry-run")
    assert outcome.code == 0
    assert "layer2.conv1.weight" in outcome.out
    assert sorted(here.iterdir()) == before


def test_tied_weights_are_saved_once_and_stay_tied(here: Path) -> None:
    model = "fxgrow.models_zoo:TiedLinears"
    assert run("grow", model, "-i", "2x10", "--widen", "1.5", "-o", "w").code == 0
    grown = restore(fxgrow.models_zoo.TiedLinears().eval(), here / "w")
    names = [n for n, _ in grown.named_parameters(remove_duplicate=False)]
    assert len(load_file(here / "w" / "model.safetensors")) == len(list(grown.parameters())) < len(names)


@pytest.mark.slow
def test_a_torchvision_model() -> None:
    outcome = run("widen", "torchvision.models:resnet18", "-n", "layer2.0.conv1", "-i", "2x3x32x32", "-o", "w")
    assert outcome.code == 0, outcome.err
    assert "128 -> 256" in outcome.out


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_used(here: Path, suffix: str) -> None:
    with seeded(7):
        model = ResNet().eval()
    path = here / f"w{suffix}"
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    assert run("widen", *RESNET, "-n", "layer2.conv1", "--weights", path, "-o", "w", "--no-verify").code == 0
    expected = fxgrow.widen(fxgrow.trace(model, (torch.zeros(2, 1, 8, 8),)), "layer2.conv1")
    assert identical(restore(ResNet().eval(), here / "w"), expected)
    held = run("verify", *RESNET, "w", "--weights-before", path)
    assert (held.code, run("verify", *RESNET, "w").code) == (0, 1), held.out


def test_verify_says_where_two_models_part() -> None:
    outcome = run("verify", "mine:Net", "mine:shifted", "-i", "mine:inputs")
    assert outcome.code == 1
    assert outcome.out.startswith("NOT THE SAME FUNCTION")
    assert "first differ at add" in outcome.out
    assert run("verify", "mine:Net", "mine:Net").code == 0


BAD: dict[str, tuple[str, str]] = {
    "no command": ("wide", "Did you mean 'widen'"),
    "no such option": ("widen mine:Net --nod a", "--nod"),
    "not a number": ("widen mine:Net --node a --to x", "--to"),
    "no factory": ("inspect mine", "is not a factory name"),
    "no module": ("inspect nowhere:Net", "no module called 'nowhere'"),
    "no such name": ("inspect mine:Nat", "has nothing called 'Nat'"),
    "arguments needed": ("inspect mine:needs", "needs arguments: width"),
    "a factory that fails": ("inspect mine:fails", "RuntimeError: no"),
    "a factory that leaves": ("inspect mine:leaves", "SystemExit"),
    "no model": ("inspect mine:number", "returns int"),
    "no input": ("inspect mine:Net -i axb", "'axb' is not an input"),
    "an input of another dtype": ("inspect mine:Net -i 2x4:float8", "is not an input"),
    "an input that is too large": ("inspect mine:Net -i 999999x999999", "entries"),
    "inputs that do not fit": ("inspect mine:Net -i 2x5", "use --input once for each input"),
    "no such layer": ("widen mine:Net -n q --dry-run", "is called 'q'"),
    "no place to save": ("widen mine:Net -n a", "no output folder"),
    "a width that does not widen": ("widen mine:Net -n a --to 8 --dry-run", "to=8 is not wider"),
    "a factor that is no number": ("widen mine:Net -n a --factor nan --dry-run", "factor=nan"),
    "two widths": ("widen mine:Net -n a --to 9 --by 2 --dry-run", "both to= and by="),
    "a refused growth": ("widen mine:Net -n b --dry-run", "FXG106"),
    "an unknown scheme": ("widen mine:Net -n a --scheme x --dry-run", "unknown scheme 'x'"),
    "a negative seed": ("widen mine:Net -n a --seed -1 --dry-run", "--seed"),
    "nothing to grow": ("grow mine:Net --dry-run", "neither"),
    "no size": ("grow mine:Net -w a=b --dry-run", "'b' is not a size"),
    "a place twice": ("grow mine:Net -d a -d a=mlp --dry-run", "named twice"),
    "a block that is code": ("deepen mine:Net --after a --block os:system --dry-run", "unknown block"),
    "more blocks than can be meant": ("deepen mine:Net --after a --count 1001 --dry-run", "1,001 new blocks"),
    "no saved model": ("inspect mine:Net --grown nowhere", "does not contain a saved model"),
    "no weights": ("widen mine:Net -n a --weights no.pt --dry-run", "there is no file"),
    "a text as weights": ("widen mine:Net -n a --weights mine.py --dry-run", "it is not a checkpoint"),
    "no layer at all": ("widen mine:Empty -n a --dry-run -i 2x4", "no layer of it can be widened"),
    "no plan": ("apply no.json mine:Net -o w", "there is no plan"),
    "a file in the way": ("widen mine:Net -n a -o mine.py", "is a file"),
    "a file above": ("widen mine:Net -n a -o mine.py/w", "mine.py is a file"),
    "a plan in no folder": ("plan mine:Net -w 2 -o nowhere/plan.json", "nowhere/plan.json cannot be written"),
    "a folder in use": ("widen mine:Net -n a -o .", "already contains mine.py"),
    "no gate": ("gate no.toml", "there is no gate file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_line_that_says_what_to_do(case: str, here: Path) -> None:
    line, said = BAD[case]
    before = sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts)
    outcome = run(*line.split())
    assert refused(outcome, said), outcome
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts) == before


def test_the_version_is_shown() -> None:
    outcome = run("--version")
    assert (outcome.code, outcome.out.split()[0]) == (0, "fxgrow")
    assert run().code == 2  # the help


def test_weights_of_another_model_are_told_by_name(here: Path) -> None:
    save_file({"module.a.weight": torch.zeros(8, 4)}, here / "ddp.safetensors")
    assert refused(run("widen", "mine:Net", "-n", "a", "--weights", "ddp.safetensors", "--dry-run"), "'module.'")
    other = {"a.weight": torch.zeros(8, 5), "a.bias": torch.zeros(8), "b.weight": torch.zeros(3, 8)}
    save_file({**other, "b.bias": torch.zeros(3)}, here / "other.safetensors")
    assert refused(run("widen", "mine:Net", "-n", "a", "--weights", "other.safetensors", "--dry-run"), "8x5")


def test_a_saved_model_is_replaced_only_when_asked(here: Path) -> None:
    call = ("widen", "mine:Net", "-n", "a", "-o", "w", "--no-verify")
    assert run(*call).code == 0
    assert refused(run(*call), "already contains model.safetensors")
    assert run(*call, "--overwrite").code == 0


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fxgrow", "inspect", "x"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr[:6]) == (2, "FXG004")


def test_the_library_imports_nothing_of_the_command() -> None:
    heavy = ("typer", "safetensors", "pytest", "fxgrow.cli", "fxgrow.gate", "fxgrow.loading")
    code = f"import sys, fxgrow; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr
