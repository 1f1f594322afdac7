"""Makes a pair that breaks a law smaller: first fewer steps, then simpler ones, then smaller widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .build import Bench
from .growths import Growth
from .plainer import plainer_growths, plainer_sketches
from .renaming import renamed
from .sketch import Input, Misfit, Sketch, Step, step

ATOMIC = frozenset({"linear", "conv", "layer_norm", "batch_norm", "pointwise", "again", "tied"})
"""Steps that are not replaced by simpler ones."""
LAYERS = frozenset({"linear", "conv", "embedding"})

Pair = tuple[Sketch, tuple[Growth, ...]]
Breaks = Callable[[Sketch, tuple[Growth, ...]], bool]
"""Whether a pair still breaks the law; sketches whose steps do not fit break none."""


def shrink(sketch: Sketch, growths: tuple[Growth, ...], breaks: Breaks, *, tries: int = 600) -> Pair:
    """Return the smallest pair found that still breaks the law.

    Args:
        sketch: the sketch of the model.
        growths: the growths, one after the other.
        breaks: tested on every smaller pair; must hold for the given pair.
        tries: the largest number of these tests.
    """
    pair, left, moved = (sketch, growths), tries, True
    while moved and left > 0:
        moved = False
        for smaller in _candidates(*pair):
            left -= 1
            if breaks(*smaller):
                pair, moved = smaller, True
                break
            if left <= 0:
                break
    return pair


def _candidates(sketch: Sketch, growths: tuple[Growth, ...]) -> Iterator[Pair]:
    for k in range(len(growths)):
        if len(growths) > 1:
            yield sketch, growths[:k] + growths[k + 1 :]
    if _needed(sketch) != sketch:
        yield _needed(sketch), growths
    for k in range(len(sketch.outputs)):
        if len(sketch.outputs) > 1:
            smaller, follow = trimmed(replace(sketch, outputs=sketch.outputs[:k] + sketch.outputs[k + 1 :]), growths)
            yield _needed(smaller), follow
    for k in reversed(range(len(sketch.steps))):
        yield from _started(sketch, growths, k)
    for k in reversed(range(len(sketch.steps))):
        for instead in dict.fromkeys(sketch.steps[k].reads):
            yield from (trimmed(*found) for found in _without(sketch, growths, k, instead))
    for k in reversed(range(len(sketch.steps))):
        yield from _expanded(sketch, growths, k)
    for smaller in plainer_sketches(sketch):
        yield smaller, growths
    for k, growth in enumerate(growths):
        for other in plainer_growths(growth):
            yield sketch, (*growths[:k], other, *growths[k + 1 :])


def _layout(sketch: Sketch) -> tuple[list[int], list[str], Bench] | None:
    """Return the number of the first value of each step, followed by the number of all values; and all values'
    layouts."""
    bench = Bench(sketch.inputs, sketch.seed)
    first = []
    try:
        for one in sketch.steps:
            first.append(bench.add(one)[0])
    except Misfit:
        return None
    return [*first, len(bench.values)], bench.layouts, bench


def trimmed(sketch: Sketch, growths: tuple[Growth, ...]) -> Pair:
    """Return the pair without the steps whose values are not used."""
    for k in reversed(range(len(sketch.steps))):
        known = _layout(sketch)
        if known is None or len(sketch.steps) == 1:
            break
        made = range(known[0][k], known[0][k + 1])
        if any(v in made for v in (*sketch.outputs, *(v for s in sketch.steps for v in s.reads))):
            continue
        found = dropped(sketch, growths, k, sketch.steps[k].reads[0])
        if found is not None:
            sketch, growths = found
    return sketch, growths


def _without(sketch: Sketch, growths: tuple[Growth, ...], k: int, instead: int) -> Iterator[Pair]:
    """Yield the pair without one step; growths that name it get the name of another layer."""
    found = dropped(sketch, growths, k, instead)
    if found is not None:
        yield found
        return
    for n, one in enumerate(sketch.steps):
        if one.op in LAYERS and n != k:
            found = spliced(sketch, growths, k, (), instead, f"={one.op}{n - (n > k)}")
            if found is not None:
                yield found


def _started(sketch: Sketch, growths: tuple[Growth, ...], k: int) -> Iterator[Pair]:
    """Yield the pair with an input in place of the value of a step; unused steps and inputs are removed."""
    known, n = _layout(sketch), len(sketch.inputs)
    if known is None or known[0][k + 1] - known[0][k] > 1:
        return
    made = known[0][k]
    if made in sketch.outputs:
        return
    fresh = Input(known[1][made], tuple(known[2].values[made].shape))

    def value(v: int) -> int:
        return n if v == made else v if v < n else v + 1

    steps = tuple(replace(s, reads=tuple(map(value, s.reads))) for s in sketch.steps)
    moved = replace(sketch, inputs=(*sketch.inputs, fresh), steps=steps, outputs=tuple(map(value, sketch.outputs)))
    smaller, follow = trimmed(moved, growths)
    if len(smaller.steps) < len(sketch.steps):
        yield _needed(smaller), follow


def _needed(sketch: Sketch) -> Sketch:
    """Return the sketch without unused inputs."""
    for k in reversed(range(len(sketch.inputs))):
        if len(sketch.inputs) > 1 and not any(k in (*s.reads, *sketch.outputs) for s in sketch.steps):
            steps = tuple(replace(s, reads=tuple(v - (v > k) for v in s.reads)) for s in sketch.steps)
            inputs = (*sketch.inputs[:k], *sketch.inputs[k + 1 :])
            sketch = replace(sketch, inputs=inputs, steps=steps, outputs=tuple(v - (v > k) for v in sketch.outputs))
    return sketch


def dropped(sketch: Sketch, growths: tuple[Growth, ...], k: int, instead: int) -> Pair | None:
    """Return the pair without one step, whose users get another value; None if growths name it or others use its
    module."""
    return spliced(sketch, growths, k, (), instead, "")


def spliced(
    sketch: Sketch, growths: tuple[Growth, ...], k: int, new: tuple[Step, ...], instead: int, name: str
) -> Pair | None:
    """Return the pair with other steps in place of one. Each of them makes one value, and users get the last.

    Args:
        sketch, growths: the pair.
        k: the number of the step.
        new: steps that read values before it, or each other's.
        instead: the value that users get if there are no new steps.
        name: the new name of the module in growths that name the old one.
    """
    known = _layout(sketch)
    if known is None or any(s.op in ("again", "tied") and s.option("of") == k for s in sketch.steps):
        return None
    first, gone, more = known[0][k], known[0][k + 1] - known[0][k], len(new)
    last = first + more - 1 if new else instead

    def value(v: int) -> int:
        return v if v < first else last if v < first + gone else v - gone + more

    def moved(one: Step) -> Step:
        options = tuple((n, v + (more - 1) * (n == "of" and v > k)) for n, v in one.options)
        return Step(one.op, tuple(map(value, one.reads)), options)

    names = {f"{s.op}{n}": f"{s.op}{n - 1 + more}" for n, s in enumerate(sketch.steps) if n > k}
    follow = renamed(growths, {**names, f"{sketch.steps[k].op}{k}": name})
    if follow is None:
        return None
    steps = (*sketch.steps[:k], *new, *map(moved, sketch.steps[k + 1 :]))
    return replace(sketch, steps=steps, outputs=tuple(dict.fromkeys(map(value, sketch.outputs)))), follow


def _expanded(sketch: Sketch, growths: tuple[Growth, ...], k: int) -> Iterator[Pair]:
    """Yield the pair with one or two plain layers in place of a step that consists of several."""
    known, old = _layout(sketch), sketch.steps[k]
    if known is None or old.op in ATOMIC or known[0][k + 1] - known[0][k] > 1:
        return
    layout, at = known[1][old.reads[0]], old.reads[0]
    if layout != known[1][known[0][k]] or layout == "words":
        return
    image, first = layout == "image", known[0][k]
    x, y = known[2].values[at], known[2].values[first]
    out = int(y.shape[1 if image else -1])

    def layer(reads: int) -> Step:
        return (
            step("conv", reads, out=out, kernel=1, groups=1, stride=1, bias=1)
            if image
            else step("linear", reads, out=out, bias=1)
        )

    norm = step("batch_norm" if image else "layer_norm", at)
    ways: list[tuple[Step, ...]] = [(layer(at),), (norm, layer(first)), (layer(at), layer(first))]
    if x.shape == y.shape:
        ways.insert(0, (norm,))
    for new in ways:
        for n, one in enumerate(new):
            found = spliced(sketch, growths, k, new, at, f"={one.op}{k + n}")
            if found is not None:
                yield found
