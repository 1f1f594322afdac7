"""What faults are watched on: a model, growths that are made, growths that are refused; and short ways to write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx

import fxgrow
from fxgrow.testing.fuzzing.build import build
from fxgrow.testing.fuzzing.growths import Growth, Widening
from fxgrow.testing.fuzzing.running import Inputs
from fxgrow.testing.fuzzing.sketch import Input, Sketch, Step, step

from ..models.scheme import Between, Net

IMAGE, VOLUME, SEQUENCE = Input("image", (2, 3, 4, 4)), Input("image", (2, 3, 2, 2, 2)), Input("image", (2, 3, 4))
TOKENS, FLAT, WORDS = Input("tokens", (2, 3, 4)), Input("flat", (3, 4)), Input("words", (2, 3))


def net(start: Input, *steps: Step, outputs: tuple[int, ...] = (), training: bool = False) -> Sketch:
    """A sketch with one input; its last value is returned."""
    return Sketch(inputs=(start,), steps=steps, outputs=outputs or (len(steps),), training=training)


def conv(at: int, out: int, groups: int = 1, kernel: int = 3) -> Step:
    """A convolution."""
    return step("conv", at, out=out, kernel=kernel, groups=groups, stride=1, bias=1)


def linear(at: int, out: int) -> Step:
    """A linear layer."""
    return step("linear", at, out=out, bias=1)


def point(at: int, kind: int) -> Step:
    """A function of each unit."""
    return step("pointwise", at, kind=kind)


def every(*nodes: str, by: int = 2, schemes: str = "r2r zero morphism net2net mean") -> tuple[Growth, ...]:
    """One growth by every scheme; by r2r with a unit that has no twin, too."""
    named = tuple(Widening(nodes=(n,), by=by, scheme=s) for n in nodes for s in schemes.split())
    odd = nodes if "r2r" in schemes and by == 2 else ()
    return (*named, *(Widening(nodes=(n,), by=3, scheme="r2r") for n in odd))


def doubled(
    *nodes: str, scheme: str = "net2net", grow: Literal["channels", "groups"] = "channels"
) -> tuple[Growth, ...]:
    """Twice as many units, for copies every one of them twice."""
    return tuple(Widening(nodes=(n,), by=0, factor=2.0, scheme=scheme, grow=grow) for n in nodes)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, growths that are made, and growths that are refused."""

    model: Sketch | Net
    made: tuple[Growth, ...]
    refused: tuple[Growth, ...] = ()

    def traced(self) -> tuple[fx.GraphModule, Inputs]:
        """The model in float64, and an input for it."""
        if isinstance(self.model, Net):
            inputs: tuple[Tensor, ...] = (self.model.input(),)
            return fxgrow.trace(self.model.made().eval(), inputs), inputs
        built = build(self.model, double=True)
        return fxgrow.trace(built.model, built.inputs), built.inputs


def between(function: Callable[[Between, Tensor], Tensor]) -> Net:
    """A function between two layers called writer and reader."""
    return Net(lambda: Between(function))


MEAN = every("linear0", schemes="mean")
HEADS = {"heads": 2, "causal": 0, "skip": 0}


def point_net(kind: int, *more: Step) -> Sketch:
    """A layer, a function of each unit, and what comes after."""
    return net(FLAT, linear(0, 4), point(1, kind), *(more or [linear(2, 2)]))
