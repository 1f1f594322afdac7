"""The sweep over libraries: what is measured of a model, processes of their own, results that outlive them, tables."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.models_zoo.coverage.inner_axes import INTERFACE, asks, planned
from fxgrow.models_zoo.coverage.libraries import library_subjects, names_like
from fxgrow.models_zoo.coverage.measure import Measured, measure
from fxgrow.models_zoo.coverage.processes import each_alone
from fxgrow.models_zoo.coverage.results import Results, losses
from fxgrow.models_zoo.coverage.subjects import Subject, subjects
from fxgrow.models_zoo.coverage.sweep import main, sweep
from fxgrow.models_zoo.coverage.sweep_tables import complaints, page, summary, write_section
from fxgrow.models_zoo.coverage.timm_models import MODELS

Say = Callable[[dict[str, Any]], None]


def subject(name: str) -> Subject:
    (found,) = subjects([name])
    return found


class Branching(nn.Module):
    """It does something else for other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool(x.sum() > 0) else x


class Heads(nn.Module):
    """Attention, in front of features that end in the logarithm of a sum, which stops them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.hidden = nn.Linear(8, 6)
        self.head = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x, x, x, need_weights=False)[0]
        z: Tensor = self.head(self.hidden(y).logsumexp(-1, keepdim=True))
        return z


# --- one model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "axes"), [("vgg", 5), ("pre_norm_encoder", 7), ("gated_conv", 1)])
def test_each_axis_is_counted_once_as_the_table_of_schemes_counts_them(name: str, axes: int) -> None:
    found = measure(subject(name), 1)
    assert found["outcome"] == "captured"
    assert (len(found["growing"]), found["stopped"], found["undecided"]) == (axes, [], [])
    assert [one["what"].split()[0] for one in found["compared"]] == ["widen", "deepen", "grow"]
    for one in found["compared"]:
        assert one["result"] == "same"
        assert one["evaluation"] <= 1e-12
        assert "training" in one or one["untrained"]


def test_axes_that_the_interface_fixes_are_left_out_and_all_others_are_counted() -> None:
    found = measure(Subject("heads", Heads, lambda: (torch.randn(2, 5, 8),)), 1)
    assert found["fixed"] == 1
    assert [(one["name"], one["width"], one["kind"]) for one in found["stopped"]] == [("hidden", 6, "STATISTIC")]
    attention = "attention.in_proj_weight"  # the features of a head, and the heads
    assert found["growing"] == [attention, f"{attention} (groups)", "attention.out_proj.weight"]
    assert all(one["result"] == "same" for one in found["compared"])


@pytest.mark.parametrize("name", ["gpt", "convnext", "refuse_straddling_norm", "refuse_norm", "refuse_window_lrn"])
def test_what_inspect_says_is_what_plans_for_a_quarter_more_or_for_twice_as_many_say(name: str) -> None:
    found = measure(subject(name), 1)
    model, inputs = subject(name).made()
    gm = fxgrow.trace(model, inputs)
    plans = [planned(gm, axis.ask) for axis in asks(gm, analysis_of(gm))]
    refused = [plan.kind for plan in plans if isinstance(plan, fxgrow.Refusal)]
    assert len(found["growing"]) == len(plans) - len(refused)
    assert len(found["stopped"]) == sum(kind not in INTERFACE for kind in refused)


def test_what_is_drawn_follows_from_the_seed() -> None:
    def drawn(seed: int) -> list[str]:
        return [one["what"] for one in measure(subject("mlp"), seed)["compared"][:2]]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_a_model_that_is_not_captured_has_one_sentence_that_says_why() -> None:
    found = measure(Subject("branching", Branching, lambda: (torch.randn(2, 64),)), 1)
    assert found["outcome"] == "not captured"
    assert "\n" not in found["why"]
    assert "test_sweep.py" in found["why"]
    assert "growing" not in found


def test_a_growth_that_changes_the_function_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fxgrow.apply

    def wrong(plan: fxgrow.Plan, gm: fx.GraphModule) -> fx.GraphModule:
        grown = right(plan, gm)
        with torch.no_grad():
            grown.get_parameter("head.bias")[0] += 1e-6
        return grown

    monkeypatch.setattr(fxgrow, "apply", wrong)
    found = measure(subject("mlp"), 1)
    assert [one["result"] for one in found["compared"]] == ["differs"] * 3
    assert len(list(complaints({"mlp": found}))) == 3


def test_the_module_is_the_yardstick_and_not_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fxgrow.trace

    def wrong(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
        gm = right(model, inputs)
        twin = fx.GraphModule({name: nn.Identity() for name, _ in gm.named_children()}, gm.graph)
        twin.meta = gm.meta
        for name, module in gm.named_children():
            setattr(twin, name, module)
        twin.fc1 = nn.Linear(64, 32).double()
        return twin

    monkeypatch.setattr(fxgrow, "trace", wrong)
    assert [one["result"] for one in measure(subject("mlp"), 1)["compared"]] == ["differs"] * 3


def test_inspect_and_plan_grow_are_compared_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fxgrow.plan_grow

    def without(gm: fx.GraphModule, widen: float) -> fxgrow.Plan:
        plan = right(gm, widen={"fc1": widen})
        return replace(plan, notes=("left out: fc2: it is late",))

    monkeypatch.setattr(fxgrow, "plan_grow", without)
    texts = measure(subject("mlp"), 1)["undecided"]
    assert [text.partition(":")[0] for text in texts] == ["fc2", "head"]
    assert "plan_grow leaves it out: it is late" in texts[0]
    assert "plan_grow grows it, and inspect says" in texts[1]


def test_what_is_offered_and_does_not_grow_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fxgrow.plan_widen

    def picky(gm: fx.GraphModule, name: str, **options: Any) -> fxgrow.Plan:
        if name == "fc2":
            raise fxgrow.GrowthRefused(fxgrow.Refusal(fxgrow.Kind.NORM, "not today"))
        return right(gm, name, **options)

    monkeypatch.setattr(fxgrow, "plan_widen", picky)
    assert measure(subject("mlp"), 1)["undecided"] == ["fc2: inspect offers it, and widen refuses it: not today"]


# --- processes -----------------------------------------------------------------------------------------------------


def of_little(name: str, say: Say, *, folder: str) -> dict[str, Any]:
    """Stands for measuring: some models end their process the first time."""
    log = Path(folder) / "log"
    with log.open("a") as out:
        out.write(f"{name}\n")
    first = log.read_text().split().count(name) == 1
    say({"outcome": "error", "during": "trace", "seconds": {}})
    if name == "killed" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "leaves" and first:
        os._exit(3)
    while name == "busy":
        pass
    if name == "sleeps":
        time.sleep(600)
    if name == "raises":
        raise ValueError("no such thing\nand more")
    return {
        "outcome": "captured",
        "seconds": {},
        "growing": [name],
        "stopped": [],
        "undecided": [],
        "modes": [],
        "parameters": 1,
    }


def test_what_ends_a_process_costs_its_model_only_and_is_told(tmp_path: Path) -> None:
    names = ["one", "killed", "leaves", "busy", "raises", "two"]
    task = partial(of_little, folder=str(tmp_path))
    found = dict(each_alone(task, names, jobs=2, limit=2))
    assert set(found) == set(names)
    assert {name: one["outcome"] for name, one in found.items()} == {
        "one": "captured",
        "two": "captured",
        "killed": "killed",
        "leaves": "killed",
        "busy": "too slow",
        "raises": "error",
    }
    assert "SIGKILL" in found["killed"]["why"]
    assert "exit code 3" in found["leaves"]["why"]
    assert "2 s of processor time" in found["busy"]["why"]
    assert found["raises"]["why"].startswith("ValueError: no such thing (")
    assert all(found[name]["during"] == "trace" for name in ("killed", "leaves", "busy", "raises"))


def test_what_waits_for_ever_is_stopped_by_the_clock(tmp_path: Path) -> None:
    task = partial(of_little, folder=str(tmp_path))
    ((name, found),) = each_alone(task, ["sleeps"], jobs=1, limit=60, patience=1)
    assert (name, found["outcome"], found["why"]) == ("sleeps", "too slow", "it was stopped after 1 s")


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    names, file, said = ["one", "killed", "raises", "two"], tmp_path / "found.jsonl", list[str]()
    task = partial(of_little, folder=str(tmp_path))

    def run(digest: str, minutes: float | None = None) -> Results:
        results = Results(file, digest, None, 5)
        sweep(names, results, task, jobs=1, limit=60, minutes=minutes, say=said.append)
        return results

    assert run("a", minutes=0).found == {}
    first = run("a").found
    assert {name: one["outcome"] for name, one in first.items() if name in ("one", "killed")} == {
        "one": "captured",
        "killed": "killed",
    }
    assert any("killed: the process ended by SIGKILL" in line for line in said)
    with file.open("a") as out:
        out.write('{"model": "two", "co')  # cut short
    second = run("a")
    assert second.found["killed"]["outcome"] == "captured"
    assert second.seed == 5
    ran = (tmp_path / "log").read_text().split()
    assert sorted(ran) == sorted([*names, "killed"])
    assert run("b").found.keys() == set(names)  # other code: all again
    assert len((tmp_path / "log").read_text().split()) == 2 * len(names) + 1


def test_the_command_measures_resumes_and_writes_the_page(tmp_path: Path) -> None:
    said: list[str] = []
    page = tmp_path / "coverage.md"
    page.write_text("# Coverage\n\n<!-- begin sweep -->\nold\n<!-- end sweep -->\n\nThe rest.\n")
    call = ["mlp", "gated_conv", "--jobs", "1", "--results", str(tmp_path / "zoo.jsonl"), "--write", str(page)]
    assert main([*call, "--minutes", "0"], said.append) == 0
    assert "2 models are left: the same call goes on with them" in said
    assert "old" in page.read_text()
    assert main([*call, "--seed", "11"], said.append) == 0
    text = page.read_text()
    assert text.startswith("# Coverage\n\n<!-- begin sweep -->\n\n## Models")
    assert text.endswith("<!-- end sweep -->\n\nThe rest.\n")
    assert "follows from seed 11." in text
    assert "old" not in text
    assert "| mlp |" in text
    said.clear()
    assert main(call, said.append) == 0
    assert said[0] == "2 models, 2 known already; seed 11"


# --- results -------------------------------------------------------------------------------------------------------


def captured(*growing: str, **more: Any) -> Measured:
    seconds = {"trace": 1.0, "analyse": 0.5, "inspect": 2.0, "whole network": 1.0}
    found = {
        "outcome": "captured",
        "growing": list(growing),
        "stopped": [],
        "undecided": [],
        "modes": [],
        "seconds": seconds,
    }
    return Measured(**{**found, "parameters": 2_000_000, **more})  # type: ignore[typeddict-item]  # a test's own fields


def test_what_grows_no_longer_is_said() -> None:
    stopped = [{"name": "b", "width": 4, "code": "FXG104", "kind": "NORM", "why": "a norm"}]
    after = captured("a", stopped=stopped)
    assert list(losses(captured("a", "b", "c"), after)) == [
        "b does not grow any more: a norm",
        "c does not grow any more: there is no such axis",
    ]
    assert list(losses(after, captured("a", "b"))) == []
    gone = Measured(outcome="not captured", why="it branches")
    assert list(losses(after, gone)) == ["is not captured any more: it branches"]
    assert list(losses(gone, after)) == []


def test_the_tables_count_every_axis_and_name_each_that_does_not_grow() -> None:
    stopped = [
        {"name": name, "width": 4, "code": "FXG104", "kind": "NORM", "why": "a norm | of all"} for name in ("x", "y")
    ]
    compared = [
        {"what": "widen a", "result": "same", "evaluation": 2e-16, "training": 3e-15},
        {"what": "deepen after b", "result": "refused: no place"},
        {"what": "grow everything", "result": "differs", "evaluation": 0.5, "untrained": "one mode"},
        {"what": "widen c", "result": "refused: late"},
    ]
    slow = {"trace": 1.0, "analyse": 0.5, "inspect": 2.0, "whole network": 9.0}
    found = {
        "one.a": captured("a", "b", stopped=stopped, compared=compared, places={"NO_VALUE": 2}),
        "one.b": captured("a", undecided=["x: inspect offers it"], seconds=slow, modes=["evaluation mode"]),
        "one.c": Measured(outcome="not captured", why="it branches", seconds={"trace": 1.0}, parameters=5),
        "two.d": Measured(outcome="killed", why="by SIGKILL", during="trace", seconds={}),
    }
    lines = summary(found).splitlines()
    assert lines[2] == "| one | 2 of 3 | 1 | 5 | 60.0 % | 2 | 1 | 1 of 2 | 1 of 2 |"
    assert lines[3] == "| two | 0 of 1 | 0 | 0 | – | 0 | 0 | 0 of 0 | 0 of 0 |"
    text = page(found, 3)
    for line in (
        "| one.c | not captured | it branches |",
        "| two.d | killed | by SIGKILL |",
        "| FXG104 NORM | 2 | 0 |",
        "Places that were drawn for the 1 insertions and take no block, by reason: NO_VALUE 2.",
        "| one.a | FXG104 a norm \\| of all | `x`, `y` |",
        "| a | 2.0 M | 4 | 50.0 % | 1 the same; deepen after b: refused: no place; grow everything: differs;"
        " widen c: refused: late | 5e-01 | 3e-15 | 1.5 s | 3.0 s |",
    ):
        assert line in text.splitlines()
    assert list(complaints(found)) == [
        "one.a: grow everything computes something else: evaluation mode 5.0e-01",
        "one.a: widen c is not compared: refused: late",
        "one.b: x: inspect offers it",
        "two.d: killed during 'trace': by SIGKILL",
    ]


def test_a_share_is_never_rounded_up_to_all() -> None:
    stopped = [{"name": "x", "width": 4, "code": "FXG104", "kind": "NORM", "why": "a norm"}]
    found = {"one.a": captured(*map(str, range(5000)), stopped=stopped)}
    assert "| 99.9 % |" in summary(found)


def test_a_section_is_put_where_it_was_and_at_the_end_where_it_was_not(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Page\n")
    write_section(file, "one", "first\n")
    write_section(file, "two", "second")
    write_section(file, "one", "third")
    one, two = (
        f"<!-- begin {name} -->\n\n{text}\n\n<!-- end {name} -->\n"
        for name, text in (("one", "third"), ("two", "second"))
    )
    assert file.read_text() == f"# Page\n\n{one}\n{two}"


# --- libraries -----------------------------------------------------------------------------------------------------


def test_every_float_model_of_torchvision_and_every_module_of_timm_is_swept() -> None:
    names = [subject.name for subject in library_subjects()]
    assert len(set(names)) == len(names)
    floats = [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]
    assert [name for name in names if name.startswith("torchvision.")] == [f"torchvision.{name}" for name in floats]
    for module, name in MODELS.items():
        assert name in timm.list_models(module=module)
    assert names_like("timm.*densenet121", "mlp") == ["timm.densenet121", "mlp"]
    assert names_like() == names


@pytest.mark.parametrize("name", ["torchvision.mvit_v2_s", "torchvision.lraspp_mobilenet_v3_large", "timm.levit_128s"])
def test_models_are_built_for_their_small_inputs_without_weights(name: str) -> None:
    (found,) = [subject for subject in library_subjects() if subject.name == name]
    with torch.no_grad():
        found.build().eval()(*found.inputs())
