"""The examples in README, CONTRIBUTING and docs run as they stand, those of one page one after the other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxgrow.rules import RULES

REPOSITORY = Path(__file__).resolve().parent.parent
EVERY = (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md")))
PAGES = [page for page in EVERY if "```python" in page.read_text()]


def blocks(page: Path) -> list[str]:
    """The Python in a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.fixture
def rules_of_its_own() -> Iterator[None]:
    """Rules that a test registers are gone after it."""
    before = set(RULES)
    yield
    for name in RULES.keys() - before:
        del RULES[name]


@pytest.mark.usefixtures("rules_of_its_own")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), names)


def test_the_scheme_that_contributing_shows_is_the_file_without_its_docstrings() -> None:
    shown = next(block for block in blocks(REPOSITORY / "CONTRIBUTING.md") if "class Zero" in block)
    body = next(node for node in ast.parse(shown).body if is_class(node))
    real = ast.parse((REPOSITORY / "fxgrow" / "schemes" / "zero.py").read_text())
    assert ast.dump(body) == ast.dump(next(map(bare, filter(is_class, real.body))))


def is_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef)


def bare(node: ast.stmt) -> ast.stmt:
    """A class or function without its docstrings."""
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    node.body = [
        bare(b) if isinstance(b, ast.FunctionDef) else b for b in node.body[ast.get_docstring(node) is not None :]
    ]
    return node
