"""The cases of the op rules: at least one row for every rule, in families as in fxgrow/rules."""

from . import (
    arithmetic,
    attention,
    concat,
    contraction,
    index,
    matrices,
    norm,
    patches,
    pointwise,
    recurrent,
    reduce,
    shape,
    window,
    writing,
)
from .row import Row

ROWS: tuple[Row, ...] = (
    *pointwise.ROWS,
    *arithmetic.ROWS,
    *contraction.ROWS,
    *norm.ROWS,
    *attention.ROWS,
    *reduce.ROWS,
    *window.ROWS,
    *shape.ROWS,
    *concat.ROWS,
    *index.ROWS,
    *matrices.ROWS,
    *patches.ROWS,
    *recurrent.ROWS,
    *writing.ROWS,
)

__all__ = ["ROWS", "Row"]
