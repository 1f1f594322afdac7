"""What the comparison with the user's module costs in `trace`, and what certificates and plans from text cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import timm
import torch
import torchvision
from analysis_cost import BESIDE_PEER, model_named
from timing import Row, Side, TooLong, alone, compare, interleaved
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrow
from fxgrow.capture.inputs.call import Call
from fxgrow.capture.locks import ONE_AT_A_TIME
from fxgrow.capture.tracing.trace import _graph_module, _in_both_modes, _Settings
from fxgrow.capture.tracing.trace_options import TraceOptions
from fxgrow.capture.user_objects.caches import caches_kept_clean

FEW = 3
"""Rounds, for calls that take seconds."""
TIMES = 12.0
"""`trace` takes at most so many times what tracing without the comparison and the analysis take together."""
SECONDS = 12.0
ALONE = {
    "torchvision": ("swin_v2_t",),
    "timm": ("gcvit_tiny", "coat_tiny", "densenet121", "efficientnet_b0"),
}
"""Models that are large, or that have many operators."""
SECTION = "trace, batch 1, 224x224 (processor time)"
CHECKS = "checks, resnet50, 2x3x64x64 (processor time)"


def tracing() -> Iterator[Row]:
    """`trace`, which records module and graph in both modes and at two sets of sizes."""
    for name in BESIDE_PEER:
        model, image = model_named(name)
        sides: dict[str, Side] = {
            "trace": lambda _, m=model, x=image: compared(m, x),  # type: ignore[misc]  # bound early
            "plain": lambda _, m=model, x=image: uncompared(m, x),  # type: ignore[misc]
            "once": lambda _, m=model, x=image: traced_once(m, x),  # type: ignore[misc]
        }
        try:
            took = interleaved(sides, FEW, time.process_time)
        except TooLong as error:
            yield Row(SECTION, f"{name}: trace", target=f"<= {TIMES}", verdict=f"missed: {error}")
            continue
        what = "the same without comparison + analyse"
        yield compare(SECTION, f"{name}: trace", what, took["trace"], took["plain"], most=TIMES)
        yield compare(SECTION, f"{name}: trace", "torch.fx.symbolic_trace + analyse", took["trace"], took["once"])
    for library, names in ALONE.items():
        for name in names:
            yield _alone(library, name)


def _alone(library: str, name: str) -> Row:
    model = (torchvision.models.get_model(name) if library == "torchvision" else timm.create_model(name)).eval()
    image = torch.zeros(1, 3, 224, 224)
    what = f"{library}'s {name}: trace"
    try:
        took = interleaved({"trace": lambda _: compared(model, image)}, FEW, time.process_time)
    except TooLong as error:
        return Row(SECTION, what, target=f"< {SECONDS:.0f} s", verdict=f"missed: {error}")
    return alone(SECTION, what, took["trace"], below=SECONDS)


def compared(model: nn.Module, image: Tensor) -> Callable[[], object]:
    """A trace that finds torch's process-wide fake tensor cache empty."""
    FakeTensorMode.cache_clear()
    return lambda: fxgrow.trace(model, (image,))


def uncompared(model: nn.Module, image: Tensor, *, analysed: bool = True) -> Callable[[], object]:
    """A trace in both modes that nothing compares with the model, and its analysis."""
    example = Call((image,))

    def call() -> object:
        with ONE_AT_A_TIME, caches_kept_clean() as caches:
            gm = _graph_module(model, _in_both_modes(model, {}, example, caches, _Settings(TraceOptions(), ())))
        return fxgrow.analyse(gm, (image,)) if analysed else gm

    FakeTensorMode.cache_clear()
    return call


def traced_once(model: nn.Module, image: Tensor) -> Callable[[], object]:
    """torch.fx's own trace, in one mode, and its analysis."""
    FakeTensorMode.cache_clear()
    return lambda: fxgrow.analyse(fx.symbolic_trace(model), (image,))


def checking() -> Iterator[Row]:
    """Certificates, and plans from text, which are proved again."""
    model = torchvision.models.resnet50(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    traced = fxgrow.trace(model, (images,))
    grown = fxgrow.widen(traced, "layer1.0.conv1")
    took = interleaved(
        {
            "original": lambda _: lambda: fxgrow.verify(model, grown, example_inputs=(images,)),
            "traced": lambda _: lambda: fxgrow.verify(traced, grown),
        },
        FEW,
        time.process_time,
    )
    yield alone(CHECKS, "verify(original, grown)", took["original"])
    yield alone(CHECKS, "verify(traced, grown)", took["traced"])
    for what, plan in (
        ("one widening", fxgrow.plan_widen(traced, "layer1.0.conv1")),
        ("the whole network wider by half", fxgrow.plan_grow(traced, widen=1.5)),
    ):
        text = plan.to_json()
        took = interleaved(
            {
                "fresh": lambda _, p=plan: lambda: fxgrow.apply(p, traced),  # type: ignore[misc]  # bound early
                "text": lambda _, t=text: lambda: fxgrow.apply(fxgrow.Plan.from_json(t), traced),  # type: ignore[misc]
            },
            clock=time.process_time,
        )
        yield compare(
            CHECKS, f"apply(Plan.from_json(text)), {what}", "the same plan, fresh", took["text"], took["fresh"]
        )
