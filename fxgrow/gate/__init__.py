"""The CI gate: checks the models and growths of a file, and models against recorded outputs."""

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
