"""Passes: each reads a Program and its Dims and returns a Plan; none writes a tensor. One file each."""

if __name__ != "fxgrow.passes":
    raise ImportError("import fxgrow.passes, not passes")

from ..planning.widths import Width
from .deepen import Deepen
from .widen import Widen

__all__ = ["Deepen", "Widen", "Width"]
