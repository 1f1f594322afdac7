"""What an analysis costs, beside torch-pruning's dependency graph of the same model, and against depth."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import torch
import torch_pruning
import torchvision
from timing import ROUNDS, Row, Side, TooLong, alone, compare, interleaved
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrow
from fxgrow.models_zoo import ResNet

PEER = "torch-pruning"
BESIDE_PEER = ("resnet50", "resnet152", "vit_b_16")
ALONE = ("swin_t", "maxvit_t")
DEPTHS = (10, 100, 1000)
LINEAR = 1.1
"""The largest exponent that still counts as linear: timing noise on a fit over two decades."""
FIRST_CALLS = 5


def model_named(name: str) -> tuple[nn.Module, Tensor]:
    """A torchvision model in evaluation mode, randomly initialised, and one image."""
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    return model, torch.zeros(1, 3, 224, 224)


def cold(traced: fx.GraphModule, image: Tensor) -> Callable[[], object]:
    """An analysis that finds nothing prepared: a new Lowering, and torch's process-wide fake tensor cache empty."""
    FakeTensorMode.cache_clear()
    return lambda: fxgrow.analyse(traced, (image,))


def dependency_graph(model: nn.Module, image: Tensor) -> object:
    """What the peer does."""
    return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=image, verbose=False)


def beside_peer() -> Iterator[Row]:
    """Analysis of traced models, against the peer's."""
    section = "analysis, batch 1, 224x224"
    for name in BESIDE_PEER:
        model, image = model_named(name)
        traced = fx.symbolic_trace(model)
        sides: dict[str, Side] = {
            "analyse": lambda _, t=traced, x=image: cold(t, x),  # type: ignore[misc]  # bound early
            "peer": lambda _, m=model, x=image: lambda: dependency_graph(m, x),  # type: ignore[misc]
            "again": lambda _, t=traced, x=image: lambda: fxgrow.analyse(t, (x,)),  # type: ignore[misc]
            "symbolic": lambda _, m=model: lambda: fx.symbolic_trace(m),  # type: ignore[misc]
            "trace": lambda _, m=model: lambda: fxgrow.trace(m),  # type: ignore[misc]
        }
        try:
            took = interleaved(sides)
        except TooLong as error:
            yield Row(section, f"{name}: analyse", PEER, target="<= 1.0, aim 0.5", verdict=f"missed: {error}")
            continue
        ours, theirs = took["analyse"], took["peer"]
        yield compare(section, f"{name}: analyse", PEER, ours, theirs, most=1.0, aim=0.5)
        yield compare(section, f"{name}: analyse, torch's fake tensor cache warm", PEER, took["again"], theirs)
        for key, label in (("symbolic", "torch.fx.symbolic_trace"), ("trace", "fxgrow.trace")):
            both = [a + b for a, b in zip(took[key], ours, strict=True)]
            yield compare(section, f"{name}: {label} + analyse", PEER, both, theirs)
    yield first_call(section)


def without_peer() -> Iterator[Row]:
    """Models on which the peer does not finish in 40 s."""
    for name in ALONE:
        section, what = "analysis, batch 1, 224x224", f"{name}: analyse"
        model, image = model_named(name)
        traced = fx.symbolic_trace(model)
        try:
            took = interleaved({"analyse": lambda _, t=traced, x=image: cold(t, x)})  # type: ignore[misc]
        except TooLong as error:
            yield Row(section, what, target="< 2 s", verdict=f"missed: {error}")
            continue
        yield alone(section, what, took["analyse"], below=2.0)


def first_call(section: str) -> Row:
    """The first analysis of a new process, in which torch has nothing prepared either."""
    took: dict[str, list[float]] = {"fxgrow": [], "peer": []}
    for number in range(FIRST_CALLS):
        for who in took if number % 2 else reversed(took):
            command = [sys.executable, str(Path(__file__).with_name("first_call.py")), who]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            took[who].append(float(json.loads(done.stdout)))
    return compare(
        section,
        f"resnet50: analyse, first call of a new process ({FIRST_CALLS} each)",
        PEER,
        took["fxgrow"],
        took["peer"],
    )


def against_depth() -> Iterator[Row]:
    """Analysis of ever deeper residual networks, and the exponent of its growth."""

    def alike(depth: int) -> nn.Module:
        return ResNet(widths=[16] * depth, strides=[1] * depth)

    def different(depth: int) -> nn.Module:
        return ResNet(widths=[4] * depth, hidden=[4 + k for k in range(depth)], strides=[1] * depth)

    yield from _depth("depth, equal blocks", alike, ROUNDS)
    yield from _depth("depth, blocks that all differ in width (medians of three)", different, 3)


def _depth(section: str, make: Callable[[int], nn.Module], rounds: int) -> Iterator[Row]:
    image = torch.zeros(2, 1, 8, 8)
    sides: dict[str, Side] = {}
    for depth in DEPTHS:
        traced = fx.symbolic_trace(make(depth).eval())
        sides[str(depth)] = lambda _, t=traced: cold(t, image)  # type: ignore[misc]  # bound early
    try:
        took = interleaved(sides, rounds)
    except TooLong as error:
        yield Row(section, f"{DEPTHS[-1]} blocks", verdict=f"missed: {error}")
        return
    seconds = {depth: median(took[str(depth)]) for depth in DEPTHS}
    for depth in DEPTHS:
        yield alone(section, f"{depth} residual blocks: analyse", took[str(depth)])
    for what, points in (
        ("exponent, fitted to all depths", seconds),
        (f"exponent, {DEPTHS[-2]} to {DEPTHS[-1]}", {d: seconds[d] for d in DEPTHS[-2:]}),
    ):
        found = exponent(points)
        yield Row(section, what, ratio=found, target=f"<= {LINEAR}", verdict="met" if found <= LINEAR else "missed")


def exponent(seconds: Mapping[int, float]) -> float:
    """The slope of the least squares line through (log depth, log seconds)."""
    x = [math.log(depth) for depth in seconds]
    y = [math.log(taken) for taken in seconds.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
