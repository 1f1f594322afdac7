"""Make a pair that breaks a law smaller, as data: fewer steps first, then plainer ones, then smaller widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .build import Bench
from .growths import Deepening, Growth, Whole, Widening
from .renaming import renamed
from .sketch import Misfit, Sketch, Step, step

PLAIN = {"stride": 1, "groups": 1, "kernel": 1, "bias": 1, "skip": 0, "causal": 0, "layers": 1, "both": 0, "norm": 0}
"""Options whose simplest value is not the least one that there is."""
SIZES = frozenset({"out", "hidden"})
ATOMIC = frozenset({"linear", "conv", "layer_norm", "batch_norm", "pointwise", "again", "tied"})
"""Steps that are not replaced by plainer ones."""

Pair = tuple[Sketch, tuple[Growth, ...]]
Breaks = Callable[[Sketch, tuple[Growth, ...]], bool]
"""Whether a pair still breaks the law. Sketches that do not fit break nothing."""


def shrink(sketch: Sketch, growths: tuple[Growth, ...], breaks: Breaks, *, tries: int = 600) -> Pair:
    """The smallest pair found that still breaks.

    Args:
        sketch: of the model.
        growths: one behind the other.
        breaks: asked of every smaller pair; must hold for the pair itself.
        tries: how often it is asked at most.
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
    for k in range(len(sketch.outputs)):
        if len(sketch.outputs) > 1:
            yield trimmed(replace(sketch, outputs=sketch.outputs[:k] + sketch.outputs[k + 1 :]), growths)
    for k in reversed(range(len(sketch.steps))):
        for instead in dict.fromkeys(sketch.steps[k].reads):
            found = dropped(sketch, growths, k, instead)
            if found is not None:
                yield trimmed(*found)
    for k in reversed(range(len(sketch.steps))):
        yield from _expanded(sketch, growths, k)
    for smaller in _plainer(sketch):
        yield smaller, growths
    for k, growth in enumerate(growths):
        for other in _plainer_growths(growth):
            yield sketch, (*growths[:k], other, *growths[k + 1 :])


def _layout(sketch: Sketch) -> tuple[list[int], list[str], Bench] | None:
    """The number of the first value of each step, behind them the number of all values; and layouts of all values."""
    bench = Bench(sketch.inputs, sketch.seed)
    first = []
    try:
        for one in sketch.steps:
            first.append(bench.add(one)[0])
    except Misfit:
        return None
    return [*first, len(bench.values)], bench.layouts, bench


def trimmed(sketch: Sketch, growths: tuple[Growth, ...]) -> Pair:
    """Without the steps whose values nobody reads."""
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


def dropped(sketch: Sketch, growths: tuple[Growth, ...], k: int, instead: int) -> Pair | None:
    """Without one step, whose readers read another value; None if growths name it, or others use its module."""
    return spliced(sketch, growths, k, (), instead, "")


def spliced(
    sketch: Sketch, growths: tuple[Growth, ...], k: int, new: tuple[Step, ...], instead: int, name: str
) -> Pair | None:
    """With other steps in place of one. Each of them gives one value, and readers get the last.

    Args:
        sketch, growths: the pair.
        k: the step.
        new: steps that read values before it, or each other.
        instead: what readers get if there are no new steps.
        name: of the module that is meant where growths name the old one's.
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
    """With one or two plain layers in place of a step that is made of several."""
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


def _plainer(sketch: Sketch) -> Iterator[Sketch]:
    plain = {"dtype": "float64", "training": False, "channels_last": False}
    for name, wanted in plain.items():
        if getattr(sketch, name) != wanted:
            yield replace(sketch, **{name: wanted})  # type: ignore[arg-type]  # values of the fields' own types
    for k, one in enumerate(sketch.steps):
        for n, (name, value) in enumerate(one.options):
            for other in _smaller(name, value):
                options = (*one.options[:n], (name, other), *one.options[n + 1 :])
                yield replace(sketch, steps=(*sketch.steps[:k], replace(one, options=options), *sketch.steps[k + 1 :]))
    for k, put in enumerate(sketch.inputs):
        for axis in range(1, len(put.shape)):
            if put.shape[axis] > 1:
                shape = (*put.shape[:axis], put.shape[axis] - 1, *put.shape[axis + 1 :])
                yield replace(sketch, inputs=(*sketch.inputs[:k], replace(put, shape=shape), *sketch.inputs[k + 1 :]))


def _smaller(name: str, value: int) -> tuple[int, ...]:
    if name in SIZES:
        return tuple(n for n in dict.fromkeys((1, 2, value - 1)) if 0 < n < value)
    if name in PLAIN:
        return (PLAIN[name],) if value != PLAIN[name] else ()
    return (0,) if name == "kind" and value else (value - 1,) if name in ("heads", "at", "times") and value > 1 else ()


def _plainer_growths(growth: Growth) -> Iterator[Growth]:
    plain: tuple[dict[str, object], ...]
    match growth:
        case Widening():
            plain = (
                {"by": 1},
                {"skip": "couple"},
                {"adapter": "pad"},
                {"grow": "channels"},
                {"init": "match"},
                {"seed": 0},
            )
            for node in growth.nodes if len(growth.nodes) > 1 else ():
                yield replace(growth, nodes=tuple(n for n in growth.nodes if n != node))
        case Deepening():
            plain = ({"count": 1}, {"side": "after"}, {"block": ""}, {"norm": "auto"}, {"activation": ""}, {"seed": 0})
        case Whole():
            plain = ({"deepen": ""}, {"factor": 2.0}, {"skip": "couple"}, {"seed": 0})
    for change in plain:
        other: Growth = replace(growth, **change)  # type: ignore[arg-type]  # values of the fields' own types
        if other != growth:
            yield other
