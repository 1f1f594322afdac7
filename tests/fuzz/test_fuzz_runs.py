"""Runs of the fuzzer: the command reports, and nothing that happens on the way loses what was seen."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fxgrow.testing.fuzz import fuzz, main
from fxgrow.testing.fuzzing import pairs
from fxgrow.testing.fuzzing.processes import Outcome, Stop, alone, together
from fxgrow.testing.fuzzing.promises import LawBroken
from fxgrow.testing.fuzzing.tally import Tally

from ..threads import SECONDS

SHORT = ["--minutes", "0.02", "--jobs", "1", "--seed", "4"]
"""A model or two."""


@pytest.mark.parametrize(("least", "code"), [(0.0, 0), (1.01, 1)])
def test_the_command_reports_and_says_by_its_exit_code_whether_enough_was_grown(
    least: float, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "found"
    monkeypatch.setattr("fxgrow.testing.fuzz.LEAST", least)
    assert main([*SHORT, "--folder", str(folder)]) == code
    assert not folder.exists()
    text = capsys.readouterr().out
    assert "0 broken laws" in text
    assert ("fewer than 101% of the pairs are growths" in text) == bool(code)


def test_a_broken_law_is_saved_and_told_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fxgrow.testing.fuzz.LEAST", 0.0)
    monkeypatch.setattr("fxgrow.testing.fuzzing.laws.FLOAT64_BOUND", -1.0)
    monkeypatch.setattr("fxgrow.testing.fuzzing.laws.ILL", -1.0)
    monkeypatch.setattr("fxgrow.testing.fuzz.smallest", lambda breach: breach)
    assert main([*SHORT, "--folder", str(tmp_path)]) == 1
    assert list(tmp_path.glob("breach_*.py"))
    assert "scripts that reproduce them" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["look_further", "force"])
def test_any_other_error_is_a_broken_law_and_the_run_goes_on(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OverflowError("not foreseen")

    monkeypatch.setattr(pairs, where, fails)
    monkeypatch.setattr(pairs, "FURTHER", 100)
    monkeypatch.setattr(pairs, "FORCING", 100)
    if where == "force":
        monkeypatch.setattr(pairs, "look_further", lambda *_: None)
    monkeypatch.setattr("fxgrow.testing.fuzz.smallest", lambda breach: breach)
    behind: list[int] = []

    def stop(tally: Tally) -> bool:
        behind.extend([tally.pairs] if tally.breaches else [])
        return len(behind) > 2

    assert fuzz(32, seconds=300, models=40, folder=tmp_path, stop=stop).breaches > 0
    assert len(behind) > 2
    script = next(iter(tmp_path.glob("breach_*.py")))
    assert "nothing else is raised: OverflowError: not foreseen (test_fuzz_runs.py:" in script.read_text()
    with pytest.raises(LawBroken, match="nothing else is raised: OverflowError"):
        runpy.run_path(str(script), run_name="__main__")


def test_progress_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fxgrow.testing.fuzzing.processes.EVERY", 0.0)
    main([*SHORT, "--folder", str(tmp_path)])
    assert re.search(r"^\d+ s: \d+ pairs, \d+ growths, 0 broken laws$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--minutes", "0"], ["--minutes", "nan"]])
def test_what_cannot_be_run_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_an_interrupted_run_reports_what_was_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(about: Any, tally: Tally, stop: Stop) -> None:
        tally.pairs, tally.grown = 10, 9
        raise KeyboardInterrupt

    monkeypatch.setattr("fxgrow.testing.fuzz._work", interrupted)
    assert main([*SHORT, "--folder", str(tmp_path)]) == 130
    text = capsys.readouterr().out
    assert "10 pairs" in text
    assert text.endswith("interrupted\n")


def busy(about: int, tally: Tally, stop: Stop) -> None:
    """Counts until it is to stop."""
    while not stop(tally):
        tally.pairs += 1
        tally.grown += 1
        if tally.pairs == 1 and about >= 0:
            os.kill(about, signal.SIGINT)  # the parent


def dying(about: int, tally: Tally, stop: Stop) -> None:
    """Counts one, and ends its process."""
    tally.pairs = 1
    raise OverflowError("dies of it")


def test_an_interruption_ends_all_processes_and_none_is_lost() -> None:
    outcome = Outcome()
    together(busy, [os.getpid(), -1], outcome)
    assert outcome.interrupted
    assert outcome.died == 0
    assert outcome.total.pairs >= 1


def test_a_process_that_dies_is_counted() -> None:
    outcome = Outcome()
    together(dying, [1, 2], outcome)
    assert (outcome.died, outcome.total.pairs, outcome.interrupted) == (2, 2, False)


def pressed(about: int, tally: Tally, stop: Stop) -> None:
    """Counts, and is interrupted; again, should Python have dropped the exception in a callback of its own."""
    while not stop(tally):
        tally.pairs += 1
        signal.raise_signal(signal.SIGINT)


def test_one_process_is_interrupted_by_an_exception() -> None:
    outcome = Outcome()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs behind them ignore it
    try:
        alone(pressed, -1, outcome)
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.interrupted
    assert outcome.total.pairs > 0


def test_the_command_with_several_processes_can_be_interrupted(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fxgrow.testing.fuzz", "--minutes", "2", "--jobs", "2", "--folder", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        end = threading.Timer(SECONDS, run.kill)
        end.start()
        assert run.stdout is not None
        assert "2 processes" in run.stdout.readline()
        threading.Timer(6.0, run.send_signal, (signal.SIGINT,)).start()
        text = run.stdout.read()
        end.cancel()
    assert run.returncode == 130
    assert "broken laws" in text
    assert text.endswith("interrupted\n")
