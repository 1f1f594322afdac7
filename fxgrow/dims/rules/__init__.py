"""One rule per ATen operator, one file per family. Importing this package registers them all."""

from . import (
    arithmetic,
    attention,
    concat,
    contraction,
    index,
    matmul,
    norm,
    pointwise,
    recurrent,
    reduce,
    shape,
    skip,
    slicing,
    window,
)
from .base import RULES, Dims, Flow, Marks, Rule, SameSizes, Sizes, register

__all__ = [
    "RULES",
    "Dims",
    "Flow",
    "Marks",
    "Rule",
    "SameSizes",
    "Sizes",
    "arithmetic",
    "attention",
    "concat",
    "contraction",
    "index",
    "matmul",
    "norm",
    "pointwise",
    "recurrent",
    "reduce",
    "register",
    "shape",
    "skip",
    "slicing",
    "window",
]
