"""Imports point one way: a module imports only from the packages below its own."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Lowest first; packages on one line do not import each other. A new module or folder of fxgrow gets its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("optional", "global_state"),
    ("functional",),
    ("capture",),  # capture/__init__.py
    ("capture.containers", "capture.locks", "capture.schemas", "capture.source_lines"),
    ("capture.program",),
    ("capture.user_objects",),
    ("capture.recording",),
    ("capture.inputs",),
    ("capture.lowering",),
    ("capture.traced_model",),
    ("capture.comparison",),
    ("capture.tracing",),
    ("capture.decomposition",),
    ("dims",),
    ("rules",),
    ("bounds",),
    ("analysis",),
    ("plans",),
    ("proof",),
    ("schemes",),
    ("planning",),
    ("insertion",),
    ("passes", "rewrite"),
    ("inspection", "plan_validation"),
    ("verification", "diagnostics"),
    ("bisection",),
    ("training",),
    ("api",),
    ("asserting", "loading"),
    ("gate",),
    ("testing",),
    ("cli",),
    ("__main__",),
    ("fxgrow",),  # fxgrow/__init__.py: it may import all of the above
    ("models_zoo",),  # uses fxgrow as its users do
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}

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


def package_of(name: str) -> str:
    """Name the package in LAYERS of a dotted module name: `fxgrow.rules.norm` is in `rules`, `fxgrow` in itself."""
    parts = name.split(".")
    if parts[1:2] == ["capture"]:
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else "fxgrow"


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and package of every import of fxgrow in `module`, those for type checkers only included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = module.package[: len(module.package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            # `from fxgrow import dims` means the package dims; `from fxgrow import widen` means the façade.
            targets = [f"{source}.{a.name}" if source == "fxgrow" and a.name in RANK else source for a in node.names]
        else:
            continue
        yield from ((node.lineno, package_of(t)) for t in targets if t.split(".")[0] == "fxgrow")


def violations(root: Path) -> list[str]:
    """Describe every import below `root` that does not point down, and every package that has no place in LAYERS."""
    found = []
    for module in modules(root):
        package = package_of(module.name)
        place = module.path.relative_to(root).as_posix()
        if package not in RANK:
            found.append(f"{place}: the package {package!r} has no place in LAYERS of tests/test_architecture.py")
            continue
        for line, target in imported(module):
            if target not in RANK:
                found.append(f"{place}:{line}: imports {target!r}, which has no place in LAYERS")
            elif target != package and RANK[target] >= RANK[package]:
                found.append(f"{place}:{line}: {package} must not import {target}")
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
        ("fxgrow/rules/conv.py", "from ..errors import Kind\nfrom ..dims.axis import Axis\nimport torch"),
        ("fxgrow/api/widening.py", "from fxgrow import passes\nimport fxgrow.rewrite.writer"),
        ("fxgrow/capture/tracing/trace.py", "from ..recording.recorder import record"),
        ("passes/widen.py", "from ..plans import Plan\nfrom .shared import pick\nfrom fxgrow.schemes import r2r"),
        ("models_zoo/demo/digits.py", "import fxgrow"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, place: str, text: str) -> None:
    plant(tmp_path, place, text)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        (
            "fxgrow/analysis/solver.py",
            "from ..plans import Plan",
            "fxgrow/analysis/solver.py:1: analysis must not import plans",
        ),
        ("fxgrow/dims/__init__.py", "from .. import plans", "fxgrow/dims/__init__.py:1: dims must not import plans"),
        ("fxgrow/errors.py", "from fxgrow import cli", "fxgrow/errors.py:1: errors must not import cli"),
        ("fxgrow/errors.py", "import fxgrow.api.widening", "fxgrow/errors.py:1: errors must not import api"),
        ("fxgrow/plans/a.py", "from fxgrow import widen", "fxgrow/plans/a.py:1: plans must not import fxgrow"),
        ("fxgrow/rewrite/a.py", "from ..passes import widen", "fxgrow/rewrite/a.py:1: rewrite must not import passes"),
        ("passes/widen.py", "from ..rewrite import writer", "passes/widen.py:1: passes must not import rewrite"),
        ("fxgrow/cli/a.py", "import fxgrow.models_zoo", "fxgrow/cli/a.py:1: cli must not import models_zoo"),
        (
            "fxgrow/errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .dims import Dims",
            "fxgrow/errors.py:3: errors must not import dims",
        ),
        (
            "fxgrow/capture/recording/a.py",
            "from ..tracing.trace import trace",
            "fxgrow/capture/recording/a.py:1: capture.recording must not import capture.tracing",
        ),
        (
            "fxgrow/utils.py",
            "",
            "fxgrow/utils.py: the package 'utils' has no place in LAYERS of tests/test_architecture.py",
        ),
        (
            "fxgrow/api/widening.py",
            "from ..utils import f",
            "fxgrow/api/widening.py:1: imports 'utils', which has no place in LAYERS",
        ),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, place: str, text: str, expected: str) -> None:
    plant(tmp_path, place, text)
    assert violations(tmp_path) == [expected]


def test_an_import_inside_a_function_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "fxgrow/api/widening.py", "import torch\n\nclass A:\n    def grow(self):\n        import timm\n")
    assert function_imports(tmp_path) == ["fxgrow/api/widening.py:5: import inside grow()"]
    assert function_imports(tmp_path, frozenset({"fxgrow/api/widening.py:grow"})) == []


def circle(root: Path) -> list[str]:
    """Modules below `root` that import each other in a circle, if there are any."""
    found = {module.name: module for module in modules(root)}
    try:
        TopologicalSorter({name: set(targets(module, found)) - {name} for name, module in found.items()}).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def targets(module: Module, known: Collection[str]) -> Iterator[str]:
    """Names of the modules that a module imports, of those that are known."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            start = module.package[: len(module.package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            yield from names & set(known)
            if not names <= set(known) and source in known:
                yield source


def test_no_modules_import_each_other() -> None:
    assert circle(REPOSITORY) == []


def test_modules_that_import_each_other_are_found(tmp_path: Path) -> None:
    plant(tmp_path, "fxgrow/dims/a.py", "from . import b")
    plant(tmp_path, "fxgrow/dims/b.py", "from ..dims.c import f")
    plant(tmp_path, "fxgrow/dims/c.py", "from fxgrow.dims.a import g")
    plant(tmp_path, "fxgrow/dims/d.py", "from .a import g")
    assert set(circle(tmp_path)) == {"fxgrow.dims.a", "fxgrow.dims.b", "fxgrow.dims.c"}
