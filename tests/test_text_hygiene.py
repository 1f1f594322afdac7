"""No file of the repository names the machine it was written on, or the host of a package registry."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/")
SCRATCH_PATH = re.compile(r"(?<![\w.])/tmp/")  # fine in code that makes its own files, not in what people read
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org|deb\.debian\.org"
    r"|conda\.anaconda\.org|repo\.anaconda\.com|proxy\.golang\.org|pypi\.nvidia\.com"
)
PROSE = {".md", ".rst", ".txt"}


def complaints(name: str, text: str) -> list[str]:
    """Quote every machine path and registry host in the `text` of the file `name`, with its line."""
    patterns = [MACHINE_PATH, REGISTRY_HOST, *([SCRATCH_PATH] if Path(name).suffix in PROSE else [])]
    return [
        f"{name}:{number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern in patterns
        for match in pattern.finditer(line)
    ]


def repository_files() -> list[Path]:
    """List the files git tracks, and the new ones it would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=300).stdout
    return [path for name in listed.split("\0") if name and (path := REPOSITORY / name).is_file()]


def text_of(path: Path) -> str:
    """Read a file; a picture or other binary file has no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.skipif(
    shutil.which("git") is None or not (REPOSITORY / ".git").exists(),
    reason="git names the files to read, and this is not a git checkout",
)
def test_no_file_names_a_machine_or_a_registry() -> None:
    files = repository_files()
    assert Path(__file__) in files
    assert [c for path in files for c in complaints(path.relative_to(REPOSITORY).as_posix(), text_of(path))] == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", "x = '/{}/main'".format("work"), 1),
        ("docs/a.md", "see\n\nfile:///{}/a".format("home"), 1),
        ("docs/a.md", "cd /{}/x".format("tmp"), 1),
        ("a.py", "cd /{}/x".format("tmp"), 0),
        ("Makefile", "pip install -i https://{}/simple".format("pypi." + "org"), 1),
        ("a.md", "https://example.net/{}/a and ./{}/b".format("work", "root"), 0),
    ],
)
def test_the_check_finds_what_is_planted(name: str, text: str, found: int) -> None:
    assert len(complaints(name, text)) == found
