"""The census: how many producers of a model grow, how many are refused, and what two versions of fxgrow say of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn

from fxgrow.models_zoo.coverage.census import Counted, count, line, losses, main
from fxgrow.models_zoo.coverage.subjects import Subject, subjects


class Branching(nn.Module):
    """It does something else for other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool(x.sum() > 0) else x


def test_producers_and_places_are_counted() -> None:
    (subject,) = subjects(["mlp"])
    found = count(subject, deepen=True, training=False)
    assert found["growing"] == ["fc1.weight", "fc2.weight"]
    assert found["refused"] == {"head.weight": "OUTPUT"}
    assert len(found["deepens"]) == 5
    assert found["stays"] == {}
    assert found["modes"] is None
    assert "2 grow,   1 refused: OUTPUT 1; 5 places deepen, 0 do not: none" in line("mlp", found)


def test_a_model_that_is_not_traced_is_a_line_with_the_reason() -> None:
    (subject,) = subjects(["mlp"])
    found = count(Subject("branching", Branching, subject.inputs), deepen=False, training=True)
    assert "UsageError" in line("branching", found)


def test_what_grows_no_longer_is_said() -> None:
    before: Counted = {"growing": ["a", "b"], "refused": {}, "deepens": ["c"], "stays": {}}
    after: Counted = {"growing": ["a"], "refused": {"b": "NO_PROOF"}, "deepens": [], "stays": {"c": "NO_VALUE"}}
    assert list(losses(before, after)) == ["b no longer grows: NO_PROOF", "no block after c: NO_VALUE"]
    assert list(losses(after, before)) == []
    assert list(losses(before, {"error": "UsageError: why"})) == ["is not traced: UsageError: why"]
    assert list(losses({"error": "UsageError: why"}, after)) == []


def test_two_versions_are_compared_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mlp.json"
    assert main(["mlp", "--json", str(file)]) == 0
    assert main(["mlp", "--against", str(file)]) == 0
    file.write_text(file.read_text().replace('"fc2.weight"', '"fc9.weight"'))
    assert main(["mlp", "--against", str(file)]) == 1
    assert "    fc9.weight no longer grows: no producer" in capsys.readouterr().out
