"""The wheel holds every package under its right name, claims no other name, and works without the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PLUGIN = "_fxgrow_pytestplugin.py"  # beside the package: pytest imports it at every start, without torch
SOURCES = {"fxgrow": "fxgrow", "passes": "fxgrow/passes", "models_zoo": "fxgrow/models_zoo"}  # folder -> place in wheel

WIDEN_ONCE = """
import sys
from pathlib import Path

target, *elsewhere = sys.argv[1:]
sys.path[:0] = [target]
sys.path += elsewhere

import torch
import fxgrow
from fxgrow import models_zoo, passes
from fxgrow.models_zoo import ZOO

for module in (fxgrow, models_zoo, passes):
    assert Path(module.__file__).is_relative_to(target), module.__file__

gm = torch.fx.symbolic_trace(ZOO["resnet"].build().eval())
wide = fxgrow.widen(gm, node="layer2.conv1")
assert wide.get_submodule("layer2.conv1").out_channels == 2 * gm.get_submodule("layer2.conv1").out_channels
print("widened")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it printed; fail the test with its whole output if it fails."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def links_and_caches(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__" or (Path(folder) / name).is_symlink()}


def modules_in(root: Path) -> set[str]:
    """Name every Python file of the checkout by its place in the wheel."""
    return {
        (PurePosixPath(place) / path.relative_to(root / folder).as_posix()).as_posix()
        for folder, place in SOURCES.items()
        for path in (root / folder).rglob("*.py")
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what a build needs: a build inside the repository would pack stale files from its build/ folder."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in SOURCES:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=links_and_caches)
    for name in ("pyproject.toml", "LICENSE", "README.md", PLUGIN):
        shutil.copy(REPOSITORY / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--wheel-dir", "dist", ".", cwd=checkout)
    (path,) = (checkout / "dist").glob("*.whl")
    return path


def test_every_package_is_listed(checkout: Path) -> None:
    listed = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert set(listed) == {name.rpartition("/")[0].replace("/", ".") for name in modules_in(checkout)}


def test_wheel_holds_the_sources_and_nothing_else(checkout: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    metadata = {name for name in names if re.match(r"fxgrow-[^/]+\.dist-info/", name)}
    assert names - metadata == modules_in(checkout) | {"fxgrow/py.typed", PLUGIN}
    assert any(name.endswith("/LICENSE") for name in metadata)


@pytest.mark.parametrize("name", ["passes", "models_zoo"])
def test_top_level_names_refuse_to_be_imported(name: str) -> None:
    code = f"try:\n    import {name}\nexcept ImportError as error:\n    print(error)"
    assert run(sys.executable, "-c", code, cwd=REPOSITORY).strip() == f"import fxgrow.{name}, not {name}"


def test_installed_wheel_widens_a_model(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
    run(*pip, "--target", target, wheel, cwd=tmp_path)
    assert {path.name.partition("-")[0] for path in target.iterdir()} == {"fxgrow", "bin", PLUGIN}
    # torch and the other dependencies come from this interpreter's folders, the checkout does not: -S runs no .pth
    # file, so the editable install is out of sight, -I drops the working directory, and folders with an fxgrow are out.
    dependencies = [path for path in sys.path if Path(path).is_dir() and not (Path(path) / "fxgrow").exists()]
    printed = run(sys.executable, "-I", "-S", "-c", WIDEN_ONCE, target, *dependencies, cwd=tmp_path)
    assert printed.splitlines()[-1] == "widened"
