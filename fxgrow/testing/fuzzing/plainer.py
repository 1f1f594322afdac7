"""Makes steps and growths simpler without changing their number: default options, smaller widths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .growths import Deepening, Growth, Whole, Widening
from .sketch import Sketch

PLAIN = {
    **dict.fromkeys(("stride", "groups", "kernel", "dilation", "bias", "layers"), 1),
    **dict.fromkeys(("skip", "causal", "both", "norm", "padding"), 0),
}
"""Options whose simplest value is not their smallest."""
SIZES = frozenset({"out", "hidden"})


def plainer_sketches(sketch: Sketch) -> Iterator[Sketch]:
    """Yield sketches with one simpler option, one smaller width or one smaller input."""
    plain = {"dtype": "float64", "training": False, "channels_last": False, "takes": "tensors", "returns": "tensors"}
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


def plainer_growths(growth: Growth) -> Iterator[Growth]:
    """Yield growths with one option at its default, or with one name less."""
    plain: tuple[dict[str, object], ...]
    match growth:
        case Widening():
            plain = (
                {"round_to": 0},
                {"to": 0},
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
            plain = (
                {"hidden": 0},
                {"kernel": 0},
                {"count": 1},
                {"side": "after"},
                {"block": ""},
                {"norm": "auto"},
                {"activation": ""},
                {"seed": 0},
            )
        case Whole():
            plain = ({"deepen": ""}, {"pattern": ""}, {"factor": 2.0}, {"skip": "couple"}, {"seed": 0})
    for change in plain:
        other: Growth = replace(growth, **change)  # type: ignore[arg-type]  # values of the fields' own types
        if other != growth:
            yield other
