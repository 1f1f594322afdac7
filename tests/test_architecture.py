"""Imports point one way: a module imports only from the rooms below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Lowest first; rooms on one line do not import each other. A new module or folder of fxgrow gets its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("optional", "surroundings"),
    ("functional",),
    ("capture",),
    ("dims",),
    ("analysis",),
    ("plan",),
    ("schemes",),
    ("passes", "rewrite"),
    ("inspection", "proving"),
    ("verify", "diagnostics"),
    ("training",),
    ("api",),
    ("deepening",),
    ("growing",),
    ("asserting", "loading"),
    ("gate",),
    ("testing",),
    ("cli",),
    ("__main__",),
    ("fxgrow",),  # the façade, fxgrow/__init__.py: it may import all of the above
    ("models_zoo",),  # uses fxgrow as its users do
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}

# "path:function" of the helpers through which optional dependencies are imported. Any other import inside a function
# hides a cycle.
OPTIONAL_IMPORT_HELPERS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Module:
    """A source file under the name it is imported by."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> list[str]:
        """The parts of the name that a relative import starts from."""
        parts = self.name.split(".")
        return parts if self.path.name == "__init__.py" else parts[:-1]


def modules(root: Path) -> Iterator[Module]:
    """Yield every module of the three source folders below `root`, links left out."""
    for folder, package in (("fxgrow", "fxgrow"), ("passes", "fxgrow.passes"), ("models_zoo", "fxgrow.models_zoo")):
        top = root / folder
        for path in sorted(top.rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(top)):
                continue
            inner = path.relative_to(top).with_suffix("").parts
            name = ".".join([package, *(part for part in inner if part != "__init__")])
            yield Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


def room_of(name: str) -> str:
    """Name the room of a dotted module name: `fxgrow.dims.rules.conv` is in `dims`, `fxgrow` itself is the façade."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "fxgrow"


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and room of every import of fxgrow in `module`, those for type checkers only included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = module.package[: len(module.package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            # `from fxgrow import dims` means the room dims; `from fxgrow import widen` means the façade.
            targets = [f"{source}.{a.name}" if source == "fxgrow" and a.name in RANK else source for a in node.names]
        else:
            continue
        yield from ((node.lineno, room_of(t)) for t in targets if t.split(".")[0] == "fxgrow")


def violations(root: Path) -> list[str]:
    """Describe every import below `root` that does not point down, and every room that has no place in LAYERS."""
    found = []
    for module in modules(root):
        room = room_of(module.name)
        place = module.path.relative_to(root).as_posix()
        if room not in RANK:
            found.append(f"{place}: the room {room!r} has no place in LAYERS of tests/test_architecture.py")
            continue
        for line, target in imported(module):
            if target not in RANK:
                found.append(f"{place}:{line}: imports {target!r}, which has no place in LAYERS")
            elif target != room and RANK[target] >= RANK[room]:
                found.append(f"{place}:{line}: {room} must not import {target}")
    return found


def function_imports(root: Path, helpers: frozenset[str] = OPTIONAL_IMPORT_HELPERS) -> list[str]:
    """Describe every import inside a function below `root`, those in `helpers` excepted."""
    found = []
    for module in modules(root):
        place = module.path.relative_to(root).as_posix()
        for function in ast.walk(module.tree):
            if (
                not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
                or f"{place}:{function.name}" in helpers
            ):
                continue
            lines = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            found += [f"{place}:{line}: import inside {function.name}()" for line in lines]
    return found


def test_imports_point_one_way() -> None:
    assert violations(REPOSITORY) == []


def test_no_import_inside_a_function() -> None:
    assert function_imports(REPOSITORY) == []


def test_all_three_folders_are_read() -> None:
    assert {"fxgrow", "fxgrow.passes", "fxgrow.models_zoo"} <= {module.name for module in modules(REPOSITORY)}


def plant(root: Path, place: str, text: str) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("fxgrow/__init__.py", "from .cli import main\nfrom . import api"),
        ("fxgrow/dims/rules/conv.py", "from ...errors import Kind\nfrom ..algebra import Axis\nimport torch"),
        ("fxgrow/api.py", "from fxgrow import passes\nimport fxgrow.rewrite.writer"),
        ("passes/widen.py", "from ..plan import Plan\nfrom .shared import pick\nfrom fxgrow.schemes import r2r"),
        ("models_zoo/demo.py", "import fxgrow"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, place: str, text: str) -> None:
    plant(tmp_path, place, text)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("fxgrow/dims/solver.py", "from ..plan import Plan", "fxgrow/dims/solver.py:1: dims must not import plan"),
        ("fxgrow/dims/__init__.py", "from .. import plan", "fxgrow/dims/__init__.py:1: dims must not import plan"),
        ("fxgrow/errors.py", "from fxgrow import cli", "fxgrow/errors.py:1: errors must not import cli"),
        ("fxgrow/errors.py", "import fxgrow.api", "fxgrow/errors.py:1: errors must not import api"),
        ("fxgrow/plan/a.py", "from fxgrow import widen", "fxgrow/plan/a.py:1: plan must not import fxgrow"),
        ("fxgrow/rewrite/a.py", "from ..passes import widen", "fxgrow/rewrite/a.py:1: rewrite must not import passes"),
        ("passes/widen.py", "from ..rewrite import writer", "passes/widen.py:1: passes must not import rewrite"),
        ("fxgrow/cli/a.py", "import fxgrow.models_zoo", "fxgrow/cli/a.py:1: cli must not import models_zoo"),
        (
            "fxgrow/errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .dims import Dims",
            "fxgrow/errors.py:3: errors must not import dims",
        ),
        (
            "fxgrow/utils.py",
            "",
            "fxgrow/utils.py: the room 'utils' has no place in LAYERS of tests/test_architecture.py",
        ),
        ("fxgrow/api.py", "from .utils import f", "fxgrow/api.py:1: imports 'utils', which has no place in LAYERS"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, place: str, text: str, expected: str) -> None:
    plant(tmp_path, place, text)
    assert violations(tmp_path) == [expected]


def test_an_import_inside_a_function_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "fxgrow/api.py", "import torch\n\nclass A:\n    def grow(self):\n        import timm\n")
    assert function_imports(tmp_path) == ["fxgrow/api.py:5: import inside grow()"]
    assert function_imports(tmp_path, frozenset({"fxgrow/api.py:grow"})) == []
