"""Writes a breach as a small Python script that reproduces it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .pairs import Breach

TEXT = '''"""{law}

{text}
"""

from fxgrow.testing.fuzzing.growths import Deepening, Whole, Widening
from fxgrow.testing.fuzzing.pairs import watched
from fxgrow.testing.fuzzing.sketch import Input, Sketch, step

SKETCH = {sketch}

GROWTHS = [
{growths}
]

if __name__ == "__main__":
    watched(SKETCH, GROWTHS)  # raises LawBroken
'''


def script(breach: Breach) -> str:
    """Return the text of the script."""
    growths = "\n".join(f"    {growth!r}," for growth in breach.growths)
    text = breach.text.replace("\\", "/").replace('"""', "'''")
    return TEXT.format(law=breach.law, text=text, sketch=breach.sketch, growths=growths)


def save(breach: Breach, folder: Path) -> Path:
    """Write the script into a folder, under a name derived from its text, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = script(breach)
    path = folder / f"breach_{hashlib.sha256(text.encode()).hexdigest()[:10]}.py"
    path.write_text(text, encoding="utf-8")
    return path
