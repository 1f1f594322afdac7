"""The gate: models and growths in a file, checked before every merge; or a model against what it computed before."""

from .baseline import compare_with, record
from .file import Gate, Growth, Subject, read_gate
from .report import as_json, as_junit
from .row import BROKEN, ERROR, HELD, REFUSED, Row
from .run import run_gate

__all__ = [
    "BROKEN",
    "ERROR",
    "HELD",
    "REFUSED",
    "Gate",
    "Growth",
    "Row",
    "Subject",
    "as_json",
    "as_junit",
    "compare_with",
    "read_gate",
    "record",
    "run_gate",
]
