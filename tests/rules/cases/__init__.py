"""The cases of the op rules: at least one row for every rule, in families as in fxgrow/rules."""

from importlib import import_module
from pkgutil import iter_modules

from .row import Row

ROWS: tuple[Row, ...] = tuple(
    row
    for name in sorted(module.name for module in iter_modules(__path__))
    for row in getattr(import_module(f"{__name__}.{name}"), "ROWS", ())
)
"""The rows of all files of this folder."""

__all__ = ["ROWS", "Row"]
