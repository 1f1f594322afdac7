"""Checks that fake tensors do not make: that embedding indices are in range, and that a dimension exists."""

from __future__ import annotations

from collections.abc import Mapping

from ..program.program import Op, Program, Value

_SAME_NUMBERS = frozenset(
    f"aten::{name}" for name in ("expand", "unsqueeze", "view", "reshape", "repeat", "to", "slice", "alias", "squeeze")
)

_CUTS = ("aten::slice", "aten::narrow")
_UNCHECKED = frozenset({"aten::softmax", "aten::_softmax", "aten::log_softmax", "aten::_log_softmax", "aten::sort"})
"""Operators whose meta kernels accept any `dim`, even one out of range."""


def may_run(program: Program) -> bool:
    """Return whether the program would run on real tensors, as far as its shapes and arguments show."""
    return reads_within_tables(program) and all(map(_axis_exists, program.ops))


def _axis_exists(op: Op) -> bool:
    x, dim = op.args.get("self"), op.args.get("dim")
    if op.name not in _UNCHECKED or not isinstance(x, Value) or not isinstance(dim, int):
        return True
    rank = max(len(x.shape), 1)
    return -rank <= dim < rank


def rows(program: Program) -> list[int]:
    """Return the sizes of position tables: of embeddings that are indexed by `arange`, and of parameters that are
    sliced or narrowed (along that dimension). Each size is listed once."""
    makers = program.makers()
    own = {value.index for value in program.parameters.values()}
    found = [
        op.args["weight"].shape[0] for op in program.ops if _looks_up(op) and _last(op.args["indices"], makers) >= 0
    ]
    cut = [op for op in program.ops if op.name in _CUTS and op.args["self"].index in own]
    return list(
        dict.fromkeys([*found, *(op.args["self"].shape[op.args["dim"] % len(op.args["self"].shape)] for op in cut)])
    )


def reads_within_tables(program: Program) -> bool:
    """Return whether every embedding that is indexed by `arange` has a row for each index."""
    makers = program.makers()
    return all(_last(op.args["indices"], makers) < op.args["weight"].shape[0] for op in program.ops if _looks_up(op))


def _looks_up(op: Op) -> bool:
    return op.name == "aten::embedding" and isinstance(op.args.get("indices"), Value)


def _last(indices: Value, makers: Mapping[int, Op]) -> int:
    """Return the largest index if the indices come from `arange`, else -1."""
    op = makers.get(indices.index)
    while op is not None and op.name in _SAME_NUMBERS:
        if op.name == "aten::slice" and op.outputs[0].shape != op.args["self"].shape:
            return -1
        op = makers.get(op.args["self"].index)
    if op is None or op.name != "aten::arange":
        return -1
    start, end, step = op.args.get("start", 0), op.args.get("end"), op.args.get("step", 1)
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step > 0):
        return -1
    return max(range(start, end, step), default=-1)
