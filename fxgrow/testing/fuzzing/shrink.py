"""Make a pair that breaks a law smaller, as data: fewer steps first, then plainer state, then smaller widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .build import Bench
from .growths import Deepening, Growth, Whole, Widening
from .sketch import Misfit, Sketch, Step

PLAIN = {"stride": 1, "groups": 1, "kernel": 1, "bias": 1, "skip": 0, "causal": 0, "layers": 1, "both": 0, "norm": 0}
"""Options whose simplest value is not the least one that there is."""
SIZES = frozenset({"out", "hidden"})
Breaks = Callable[[Sketch, tuple[Growth, ...]], bool]
"""Whether a pair still breaks the law. Sketches that do not fit break nothing."""


def shrink(
    sketch: Sketch, growths: tuple[Growth, ...], breaks: Breaks, *, tries: int = 600
) -> tuple[Sketch, tuple[Growth, ...]]:
    """The smallest pair found that still breaks.

    Args:
        sketch: of the model.
        growths: one behind the other.
        breaks: asked of every smaller pair; must hold for the pair itself.
        tries: how often it is asked at most.
    """
    left, moved = tries, True
    while moved and left > 0:
        moved = False
        for smaller, fewer in _candidates(sketch, growths):
            left -= 1
            if breaks(smaller, fewer):
                sketch, growths, moved = smaller, fewer, True
                break
            if left <= 0:
                break
    return sketch, growths


def _candidates(sketch: Sketch, growths: tuple[Growth, ...]) -> Iterator[tuple[Sketch, tuple[Growth, ...]]]:
    for k in range(len(growths)):
        if len(growths) > 1:
            yield sketch, growths[:k] + growths[k + 1 :]
    for smaller, names in _without_steps(sketch):
        renamed = tuple(_renamed(g, names) for g in growths)
        if all(g is not None for g in renamed):
            yield smaller, tuple(g for g in renamed if g is not None)
    for smaller in _plainer(sketch):
        yield smaller, growths
    for k, growth in enumerate(growths):
        for other in _plainer_growths(growth):
            yield sketch, (*growths[:k], other, *growths[k + 1 :])


def _without_steps(sketch: Sketch) -> Iterator[tuple[Sketch, dict[str, str]]]:
    """Sketches without one step, whose readers read what it read; those without an output or an unused input, too."""
    for k in range(len(sketch.outputs)):
        if len(sketch.outputs) > 1:
            yield replace(sketch, outputs=sketch.outputs[:k] + sketch.outputs[k + 1 :]), {}
    first = _firsts(sketch)
    if first is None:
        return
    for k in reversed(range(len(sketch.steps))):
        for instead in dict.fromkeys(sketch.steps[k].reads):
            found = _bypassed(sketch, first, k, instead)
            if found is not None:
                yield found
    for k in reversed(range(len(sketch.steps))):  # a later value is read, and returned, in place of one made earlier
        for at, instead in enumerate(first[:k]):
            if at > 0 and instead not in sketch.steps[k].reads:
                step = replace(sketch.steps[k], reads=(instead, *sketch.steps[k].reads[1:]))
                yield replace(sketch, steps=(*sketch.steps[:k], step, *sketch.steps[k + 1 :])), {}


def _firsts(sketch: Sketch) -> list[int] | None:
    """The number of the first value of each step, and the number of all values behind them."""
    bench = Bench(sketch.inputs, sketch.seed)
    first = []
    try:
        for step in sketch.steps:
            first.append(bench.add(step)[0])
    except Misfit:
        return None
    return [*first, len(bench.values)]


def _bypassed(sketch: Sketch, first: list[int], k: int, instead: int) -> tuple[Sketch, dict[str, str]] | None:
    gone = first[k + 1] - first[k]

    def value(v: int) -> int:
        return v if v < first[k] else instead if v < first[k] + gone else v - gone

    def moved(step: Step) -> Step:
        of = tuple((n, v - (n == "of" and v > k)) for n, v in step.options)
        return Step(step.op, tuple(map(value, step.reads)), of)

    if any(s.op in ("again", "tied") and s.option("of") == k for s in sketch.steps):
        return None
    steps = (*sketch.steps[:k], *map(moved, sketch.steps[k + 1 :]))
    outputs = tuple(dict.fromkeys(map(value, sketch.outputs)))
    names = {f"{s.op}{n}": f"{s.op}{n - 1}" for n, s in enumerate(sketch.steps) if n > k}
    return replace(sketch, steps=steps, outputs=outputs), {**names, f"{sketch.steps[k].op}{k}": ""}


def _renamed(growth: Growth, names: dict[str, str]) -> Growth | None:
    """A growth whose modules have other numbers; None if one of them is gone."""

    def new(name: str) -> str | None:
        for old, now in names.items():
            if name == old or name.startswith((f"{old}.", f"{old}_")):
                return now + name[len(old) :] if now else None
        return name

    match growth:
        case Widening():
            nodes = [new(n) for n in growth.nodes]
            return None if None in nodes else replace(growth, nodes=tuple(n for n in nodes if n is not None))
        case Deepening():
            found = new(growth.name)
            return None if found is None else replace(growth, name=found)
        case Whole():
            found = new(growth.deepen) if growth.deepen else ""
            return None if found is None else replace(growth, deepen=found)


def _plainer(sketch: Sketch) -> Iterator[Sketch]:
    if sketch.dtype != "float64":
        yield replace(sketch, dtype="float64")
    if sketch.training:
        yield replace(sketch, training=False)
    if sketch.channels_last:
        yield replace(sketch, channels_last=False)
    for k, step in enumerate(sketch.steps):
        for n, (name, value) in enumerate(step.options):
            for other in _smaller(step, name, value):
                options = (*step.options[:n], (name, other), *step.options[n + 1 :])
                yield replace(sketch, steps=(*sketch.steps[:k], replace(step, options=options), *sketch.steps[k + 1 :]))
    for k, one in enumerate(sketch.inputs):
        for axis in range(1, len(one.shape)):
            if one.shape[axis] > 1:
                shape = (*one.shape[:axis], one.shape[axis] - 1, *one.shape[axis + 1 :])
                yield replace(sketch, inputs=(*sketch.inputs[:k], replace(one, shape=shape), *sketch.inputs[k + 1 :]))


def _smaller(step: Step, name: str, value: int) -> tuple[int, ...]:
    if name in SIZES:
        return tuple(n for n in (1, 2, value - 1) if 0 < n < value)
    if name in PLAIN:
        return (PLAIN[name],) if value != PLAIN[name] else ()
    return (0,) if name == "kind" and value else (value - 1,) if name in ("heads", "at", "times") and value > 1 else ()


def _plainer_growths(growth: Growth) -> Iterator[Growth]:
    plain: tuple[dict[str, object], ...]
    match growth:
        case Widening():
            plain = ({"by": 1}, {"skip": "couple"}, {"adapter": "pad"}, {"grow": "channels"}, {"init": "match"}, {"seed": 0})
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
