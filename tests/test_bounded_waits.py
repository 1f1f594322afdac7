"""No test waits without a bound: for a process, for a thread, or for a signal from one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
WAITS = ("join", "wait", "communicate")
RUNS = ("run", "call", "check_call", "check_output")


def unbounded(text: str) -> Iterator[int]:
    """The lines of calls that may wait for ever."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        bounded = any(keyword.arg == "timeout" for keyword in node.keywords)
        process = isinstance(node.func.value, ast.Name) and node.func.value.id == "subprocess"
        if not bounded and (node.func.attr in RUNS if process else node.func.attr in WAITS and not node.args):
            yield node.lineno


def test_nothing_waits_without_a_bound() -> None:
    found = {f"{path.relative_to(TESTS)}:{n}" for path in TESTS.rglob("*.py") for n in unbounded(path.read_text())}
    assert found == set()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("thread.join()", 1),
        ("event.wait()", 1),
        ("process.communicate()", 1),
        ("subprocess.run(command)", 1),
        ("thread.join(3)", 0),
        ("event.wait(timeout=3)", 0),
        ("subprocess.run(command, timeout=3)", 0),
        ("' '.join(words)", 0),
    ],
)
def test_the_check_finds_what_is_planted(text: str, count: int) -> None:
    assert len(list(unbounded(text))) == count


def test_every_test_has_a_time_limit(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 1800
