"""The results of a sweep, kept in a file of JSON lines, so that an interrupted sweep can be resumed with the same
code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import fxgrow

from .measure import Measured

ZOO = Path(__file__).parent.parent
LIBRARIES = ("torch", "torchvision", "timm")
UNFINISHED = frozenset({"killed", "too slow"})
"""Outcomes of models that are measured again."""


def code() -> str:
    """Return a digest of everything that determines the results: the sources of fxgrow and the versions of the
    libraries."""
    digest = hashlib.sha256()
    for folder in (Path(fxgrow.__file__).parent, ZOO, ZOO.parent / "passes"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(file.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    return digest.hexdigest()[:16]


class Results:
    """The results by model, for this code and one seed; each is written to the file when it is added."""

    def __init__(self, file: Path, digest: str, seed: int | None, fresh: int) -> None:
        """Read the existing results.

        Args:
            file: a file of JSON lines, which need not exist.
            digest: the digest of the code (see `code`).
            seed: only results with this seed are used; None takes the seed of the last result.
            fresh: the seed if there are no results.
        """
        self.file, self.digest = file, digest
        lines = [line for line in _lines(file) if line.get("code") == digest]
        known = [line["seed"] for line in lines]
        self.seed: int = seed if seed is not None else known[-1] if known else fresh
        self.found = {str(line["model"]): cast(Measured, line["found"]) for line in lines if line["seed"] == self.seed}

    def add(self, model: str, found: Measured) -> None:
        """Store the results of a model."""
        self.found[model] = found
        line = {"model": model, "code": self.digest, "seed": self.seed, "found": found}
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def left(self, models: Sequence[str]) -> list[str]:
        """Return the models without a result, or whose measurement did not finish."""
        return [m for m in models if m not in self.found or self.found[m]["outcome"] in UNFINISHED]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file, without incomplete ones."""
    if file.exists():
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"model", "code", "seed", "found"} <= line.keys():
                yield line


def read(file: Path) -> dict[str, Measured]:
    """Return the last result of each model, whatever version of the code it is from."""
    return {str(line["model"]): cast(Measured, line["found"]) for line in _lines(file)}


def losses(before: Measured, after: Measured) -> Iterator[str]:
    """Yield what grew before and does not grow now."""
    if before["outcome"] != "captured":
        return
    if after["outcome"] == "not captured":
        yield f"is not captured any more: {after['why']}"
        return
    now = set(after.get("growing", ()))
    why = {stopped["name"]: stopped["why"] for stopped in after.get("stopped", ())}
    for name in before.get("growing", ()):
        if name not in now:
            yield f"{name} does not grow any more: {why.get(name, 'there is no such axis')}"
