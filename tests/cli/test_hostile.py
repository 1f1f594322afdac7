"""Plans and checkpoints from strangers: refused, before anything is run, allocated or written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fxgrow
from fxgrow.loading.saved import PLAN, WEIGHTS
from fxgrow.models_zoo import ResNet
from fxgrow.rewrite import apply as write
from fxgrow.rewrite import memory_limits as limits
from fxgrow.rewrite import validate as fit

from .command import fxgrow as run
from .command import refused

MODEL = ("fxgrow.models_zoo:ResNet", "-i", "2x1x8x8")
Data = dict[str, Any]
Change = Callable[[Data], object]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def text() -> str:
    """A plan with every kind of edit: widths, a skip adapter, a new block, a clone."""
    traced = fxgrow.trace(ResNet().eval(), (torch.zeros(2, 1, 8, 8),))
    wide = {"layer2.conv2": 2.0}
    return fxgrow.plan_grow(traced, widen=wide, deepen={"layer3": "basic"}, skip="reshape").to_json()


@pytest.fixture
def data(text: str) -> Data:
    found: Data = json.loads(text)
    return found


def block(plan: Data) -> Data:
    found: Data = plan["then"][0]["inserts"][0]
    return found


def put(thing: Any, key: Any, value: Any) -> None:
    thing[key] = value


def widened(plan: Data, width: int) -> None:
    """Make every new axis this wide, consistently."""
    for edit in plan["tensors"]:
        for growth in edit["axes"]:
            if growth["layout"]["is"] == "Leaf":
                growth["layout"]["new"] = edit["new"][growth["axis"]] = width


CODE = "x, y=__import__('os').system('touch planted'), z"
HUGE = [["in_channels", 2**30], ["out_channels", 2**30], ["kernel_size", 9]]
FACTORY = {"is": "Factory", "text": "os.system", "build": "os.system", "channels": 1, "residual": True}
HOSTILE: dict[str, tuple[Change, str]] = {
    "a monstrous width": (lambda p: widened(p, 2**39), "times as large"),
    "a width beyond all numbers": (lambda p: widened(p, 10**30), "is not a valid int"),
    "a seed that is NaN": (lambda p: put(p, "seed", float("nan")), "nan is not a valid int"),
    "a seed that is a text": (lambda p: put(p, "seed", "0"), "'0' is not a valid int"),
    "a negative seed": (lambda p: put(p, "seed", -1), "its seed is -1, not a whole number"),
    "a negative seed further down": (lambda p: put(p["then"][0], "seed", -1), "its seed is -1, not a whole number"),
    "a scheme of control codes": (lambda p: put(p, "scheme", "\x1b[2J"), "is not a valid name of a scheme"),
    "a scheme without end": (lambda p: put(p, "scheme", "z" * 10**6), "is not a valid name of a scheme"),
    "a title without end": (lambda p: put(p, "title", "z" * 10**6), "its title has 1,000,000 characters"),
    "noise that is NaN": (lambda p: put(p, "noise", float("nan")), "nan is not a valid float"),
    "noise that is infinite": (lambda p: put(p, "noise", 1e999), "inf is not a valid float"),
    "a scale that overflows": (lambda p: put(p["tensors"][0], "scale", 10**400), "is not a valid float"),
    "a path as the name of a tensor": (lambda p: put(p["tensors"][0], "names", ["../../x"]), "no such tensor"),
    "an unknown way to draw": (lambda p: put(p, "init", "os.system"), "unknown"),
    "a method instead of a size": (
        lambda p: put(p["modules"][0]["attributes"], 0, ["forward", 1, 2]),
        "which is not a size there",
    ),
    "a private attribute": (
        lambda p: put(p["modules"][0]["attributes"][0], 0, "__class__"),
        "not an attribute of that module",
    ),
    "a skip adapter of monstrous width": (lambda p: put(p["skips"][0], "width", 2**39), "skip path"),
    "a skip adapter of unknown kind": (lambda p: put(p["skips"][0], "kind", "os"), "skip path"),
    "an argument whose name is code": (
        lambda p: p["nodes"].append({"node": "relu", "path": ["kwargs", CODE], "old": None, "new": 1}),
        "not an argument",
    ),
    "an edit of a function": (
        lambda p: p["nodes"].append({"node": "relu", "path": ["target"], "old": 1, "new": 1}),
        "not an argument",
    ),
    "a text where numbers stand": (
        lambda p: p["nodes"].append({"node": "relu", "path": ["args", 0], "old": None, "new": "__class__"}),
        "is not a number",
    ),
    "a call of the shell": (
        lambda p: block(p)["body"]["calls"].append(
            {"name": "h", "op": "call_function", "target": "os.system", "args": ["touch planted"], "kwargs": []}
        ),
        "'os.system', which is not allowed in blocks",
    ),
    "a method that writes": (
        lambda p: put(block(p)["body"]["calls"][0], "op", "call_method"),
        "which is not allowed in blocks",
    ),
    "a keyword that is code": (
        lambda p: put(block(p)["body"]["calls"][0], "kwargs", [[CODE, 1]]),
        "invalid names",
    ),
    "a name that is code": (lambda p: put(block(p)["body"]["calls"][0], "name", CODE), "not allowed in blocks"),
    "a layer that is no layer": (lambda p: put(block(p)["body"]["parts"][0], "kind", "ModuleList"), "not allowed in"),
    "a layer of monstrous size": (lambda p: put(block(p)["body"]["parts"][0], "options", HUGE), "cannot be built"),
    "a layer of another size": (
        lambda p: put(block(p)["body"]["parts"][0], "options", [["in_channels", 9], *HUGE[2:], ["out_channels", 9]]),
        "but it does not",
    ),
    "a path as the name of a block": (lambda p: put(block(p), "name", "../../../etc/x"), "not a valid module name"),
    "the name of something that is there": (lambda p: put(block(p), "name", "forward"), "an attribute of that name"),
    "a block behind nothing": (lambda p: put(block(p), "node", "nowhere"), "no such node"),
    "a block made by a function": (lambda p: put(block(p), "body", FACTORY), "is not a valid Callable"),
    "another model": (lambda p: put(p, "model", "0" * 16), "another model"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_plan_gets_an_error_and_nothing_else(data: Data, case: str, here: Path) -> None:
    change, said = HOSTILE[case]
    change(data["plan"])
    Path("plan.json").write_text(json.dumps(data))
    outcome = run("apply", "plan.json", *MODEL, "--out", "w", "--no-verify")
    assert outcome.code == 2, outcome
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert [p.name for p in here.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("command", ["apply plan.json", "widen -n layer2.conv1"])
def test_what_the_machine_cannot_hold_is_not_allocated(
    text: str, command: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "memory", lambda: 2**10)
    Path("plan.json").write_text(text)
    verb, *rest = command.split()
    outcome = run(verb, *(rest[:1] if verb == "apply" else ()), *MODEL, *(rest if verb == "widen" else ()), "-o", "w")
    assert outcome.code == 2
    assert "GiB of memory" in outcome.err
    assert not (here / "w").exists()


def test_the_plan_itself_is_welcome(text: str) -> None:
    Path("plan.json").write_text(text)
    assert run("apply", "plan.json", *MODEL, "--out", "w", "--no-verify").code == 0


def test_without_the_checks_a_keyword_would_run_code(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle must be able to fail: torch.fx writes keywords into source as they are."""
    body = block(data["plan"])["body"]
    body["calls"][0]["kwargs"] = [[CODE, 1]]
    plan = fxgrow.Plan.from_json(json.dumps(data))
    model = fxgrow.trace(ResNet().eval(), (torch.zeros(2, 1, 8, 8),))

    def nothing(*_: object) -> Iterator[str]:
        return iter(())

    monkeypatch.setattr(fit, "odd_blocks", nothing)
    grown = write(plan, model)
    with pytest.raises(TypeError):
        grown(torch.zeros(2, 1, 8, 8))
    assert Path("planted").exists()


def test_terminal_codes_in_a_plan_are_not_printed(data: Data) -> None:
    data["plan"]["title"] = "\x1b]0;owned\x07 \x1b[2J"
    Path("plan.json").write_text(json.dumps(data))
    outcome = run("apply", "plan.json", *MODEL, "--dry-run")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "\x07" not in outcome.out


class Planted:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("planted", "w")


@pytest.mark.parametrize("name", ["w.pt", "w.pkl", "w.safetensors"])
def test_a_checkpoint_with_code_is_refused(name: str, here: Path) -> None:
    if name.endswith(".pt"):
        torch.save({"state_dict": ResNet().state_dict(), "extra": Planted()}, name)
    else:
        Path(name).write_bytes(pickle.dumps(Planted()))
    outcome = run("widen", *MODEL, "-n", "layer2.conv1", "--weights", name, "--out", "w")
    assert outcome.code == 2
    assert "code" in outcome.err or "cannot be read" in outcome.err
    assert [p.name for p in here.iterdir()] == [name]


def test_it_is_unpickled_only_on_the_users_word() -> None:
    torch.save({"state_dict": ResNet().state_dict(), "extra": Planted()}, "w.pt")
    call = ("widen", *MODEL, "-n", "layer2.conv1", "--weights", "w.pt", "--dry-run")
    assert refused(run(*call), "use --unsafe-pickle if you trust its author fully")
    assert not Path("planted").exists()
    with pytest.warns(ResourceWarning, match="planted"):
        assert run(*call, "--unsafe-pickle").code == 0
    assert Path("planted").exists()


def test_a_saved_model_names_no_code_and_follows_no_link(here: Path) -> None:
    call = ("widen", *MODEL, "-n", "layer2.conv1", "--out", "w", "--no-verify")
    assert run(*call).code == 0
    victim = here / "victim"
    victim.write_text("mine")
    (here / "w" / WEIGHTS).unlink()
    (here / "w" / WEIGHTS).symlink_to(victim)
    assert run(*call, "--overwrite").code == 0
    assert victim.read_text() == "mine"
    facts = {"fxgrow.inputs": json.dumps(["os:getcwd"])}
    path = here / "w" / WEIGHTS
    from_safetensors(path, facts)
    assert run("verify", "fxgrow.models_zoo:ResNet", "w").code == 2


def from_safetensors(path: Path, facts: dict[str, str]) -> None:
    """Write a file of tensors again, with other facts in its header."""
    save_file(load_file(path), path, facts)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b'{"format": "fxgrow plan"}', b"[" * 10_000])
def test_what_is_no_plan_is_told(content: bytes) -> None:
    Path(PLAN).write_bytes(content)
    assert refused(run("apply", PLAN, *MODEL, "--out", "w"), "FXG008")
