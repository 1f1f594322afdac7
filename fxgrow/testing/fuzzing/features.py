"""Finds features of a sketch other than its steps: kinds of residual connections and convolutions, its state."""

from __future__ import annotations

from collections.abc import Iterator

from .moves import KINDS
from .parts import several
from .sketch import Sketch, Step

SUMS = (0, 1, 4)
"""Kinds of `binary` steps that add or subtract."""
LONG = 4
"""Least number of steps that a long skip path skips."""


def features(sketch: Sketch) -> frozenset[str]:
    """Return the names of a sketch's features."""
    found = {*_states(sketch), *_residuals(sketch)}
    for one in sketch.steps:
        found.update(_kinds(one))
    for put in sketch.inputs:
        rank = f" {len(put.shape) - 2}-D" if put.layout == "image" else ""
        found.add(f"input: {put.layout}{rank}")
    return frozenset(found)


def _states(sketch: Sketch) -> Iterator[str]:
    yield sketch.dtype
    yield "training" if sketch.training else "evaluation"
    if sketch.channels_last:
        yield "channels_last"
    if len(sketch.inputs) > 1:
        yield "several inputs"
    if len(sketch.outputs) > 1:
        yield "several outputs"
    yield f"takes: {sketch.takes}"
    yield f"returns: {sketch.returns}"


def _kinds(one: Step) -> Iterator[str]:
    options = dict(one.options)
    if one.op in ("conv", "transposed_conv") and options["groups"] > 1:
        yield f"grouped {one.op}"
    if one.op in KINDS and KINDS[one.op] > 1:
        yield f"{one.op} {options['kind']}"
    if options.get("dilation", 1) > 1:
        yield "dilated conv"
    if options.get("stride", 1) > 1:
        yield "strided conv"


def _residuals(sketch: Sketch) -> Iterator[str]:
    """Yield the kinds of skip paths.

    A skip path leads from a value to a sum with a value computed from it. It is long if that took many steps. Another
    skip path is nested in it if both its ends lie on the main path, and crosses it if one does. If both terms of a sum
    were computed from one value, each by its own steps, the skip path is projected.
    """
    above, first = _ancestors(sketch)
    skips: list[tuple[int, int, set[int]]] = []
    for k, one in enumerate(sketch.steps):
        if one.op != "binary" or one.option("kind") not in SUMS or one.reads[0] == one.reads[1]:
            continue
        x, y = sorted(one.reads)
        if x in above[y]:
            way = {v for v in above[y] | {y} if x in above[v]}
            skips.append((x, first[k], way))
            yield "residual"
            if len(way) >= LONG:
                yield "long residual"
        elif above[x] & above[y]:
            yield "projected residual"
    for a, b, way in skips:
        for c, d, _ in skips:
            if d in way and (c in way or c == a):
                yield "nested residual"
            if c in way and c != a and d != b and d not in way and b in above[d]:
                yield "crossing residual"


def _ancestors(sketch: Sketch) -> tuple[list[set[int]], list[int]]:
    """Return the values that each value is computed from, and the number of the first value of each step."""
    above: list[set[int]] = [set() for _ in sketch.inputs]
    first = []
    for one in sketch.steps:
        made = set(one.reads).union(*(above[v] for v in one.reads))
        first.append(len(above))
        above += [made] * several(one.op, dict(one.options))
    return above, first
