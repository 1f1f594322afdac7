"""The wheel holds every package under its right name, claims no other name, and works without the checkout."""

from __future__ import annotations

import configparser
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

ASKS = """
import _fxgrow_pytestplugin, torch

def test_asks(function_preserved):
    assert _fxgrow_pytestplugin.__file__.split("/")[-2] == "site"
    model = torch.nn.Linear(4, 3).eval()
    assert function_preserved(model, model, torch.zeros(2, 4)).held
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it printed; fail the test with its whole output if it fails."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
    )
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


def test_wheel_declares_the_command_and_the_plugin(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(archive.read(name).decode())
    assert dict(points["console_scripts"]) == {"fxgrow": "fxgrow.cli.app:main"}
    assert dict(points["pytest11"]) == {PLUGIN.removesuffix(".py"): PLUGIN.removesuffix(".py")}


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
    run(*pip, "--target", place / "site", wheel, cwd=place)
    return place / "site"


def test_installed_wheel_gives_tests_the_fixture(target: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(ASKS)
    code = f"import sys; sys.path[:0] = [{str(target)!r}]; sys.path += sys.argv[1:]; import pytest; "
    code += 'sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_it.py"]))'
    assert "1 passed" in run(sys.executable, "-I", "-S", "-B", "-c", code, *dependencies(), cwd=tmp_path)


def dependencies() -> list[str]:
    """Where torch and the others are. -S runs no .pth file, so that an editable install is out of sight, -I drops the
    working directory, and folders with an fxgrow are out."""
    return [path for path in sys.path if Path(path).is_dir() and not (Path(path) / "fxgrow").exists()]


def test_installed_wheel_widens_a_model(target: Path, tmp_path: Path) -> None:
    assert {path.name.partition("-")[0] for path in target.iterdir()} == {"fxgrow", "bin", PLUGIN}
    printed = run(sys.executable, "-I", "-S", "-c", WIDEN_ONCE, target, *dependencies(), cwd=tmp_path)
    assert printed.splitlines()[-1] == "widened"
