"""One rule per ATen operator, one file per family. Importing this package registers them all."""

from . import concat, contraction, index, norm, pointwise, reduce, shape, window
from .base import RULES, Dims, Flow, Marks, Rule, SameSizes, Sizes, register

__all__ = [
    "RULES",
    "Dims",
    "Flow",
    "Marks",
    "Rule",
    "SameSizes",
    "Sizes",
    "concat",
    "contraction",
    "index",
    "norm",
    "pointwise",
    "reduce",
    "register",
    "shape",
    "window",
]
