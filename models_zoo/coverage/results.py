"""What a sweep has found, kept in a file of JSON lines: it goes on where it was stopped, if the code is the same."""

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
"""Is tried once more."""


def code() -> str:
    """A digest of all that decides what is found: the sources of fxgrow, and the versions of the libraries."""
    digest = hashlib.sha256()
    for folder in (Path(fxgrow.__file__).parent, ZOO, ZOO.parent / "passes"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(file.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    return digest.hexdigest()[:16]


class Results:
    """Results by model, those of this code and of one seed; each is written down when it is added."""

    def __init__(self, file: Path, digest: str, seed: int | None, fresh: int) -> None:
        """Read what there is.

        Args:
            file: of JSON lines; need not exist.
            digest: of the code (see `code`).
            seed: only results drawn by this count; None takes the one of the results that are there.
            fresh: the seed if there are none.
        """
        self.file, self.digest = file, digest
        lines = [line for line in _lines(file) if line.get("code") == digest]
        known = [line["seed"] for line in lines]
        self.seed: int = seed if seed is not None else known[-1] if known else fresh
        self.found = {str(line["model"]): cast(Measured, line["found"]) for line in lines if line["seed"] == self.seed}

    def add(self, model: str, found: Measured) -> None:
        """Keep what was found of a model."""
        self.found[model] = found
        line = {"model": model, "code": self.digest, "seed": self.seed, "found": found}
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def left(self, models: Sequence[str]) -> list[str]:
        """Models of which there is no result, or one that was cut short."""
        return [m for m in models if m not in self.found or self.found[m]["outcome"] in UNFINISHED]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; one that was cut short is left out."""
    if file.exists():
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"model", "code", "seed", "found"} <= line.keys():
                yield line


def read(file: Path) -> dict[str, Measured]:
    """The last result of each model, whatever code it is of."""
    return {str(line["model"]): cast(Measured, line["found"]) for line in _lines(file)}


def losses(before: Measured, after: Measured) -> Iterator[str]:
    """What grew before and does not grow now."""
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
