"""What it costs to find out what grows in a whole network, and to plan it, beside one forward pass and nncf's graph."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator

import timm
import torch
import torchvision
from fidelity_cost import FEW, uncompared
from timing import Row, Side, TooLong, alone, compare, interleaved
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrow
from fxgrow.analysis.analysis import Analysis
from fxgrow.capture.recording.meta_kernels import REMEMBERED

SECTION = "trace + inspect + plan_grow(widen=2.0), batch 1, 224x224 (processor time; the comparison in trace aside)"
MODELS = (
    ("torchvision", "swin_v2_t"),
    ("timm", "gcvit_tiny"),
    ("timm", "coat_tiny"),
    ("torchvision", "densenet121"),
    ("torchvision", "resnet50"),
)
SECONDS = 3.0


def planning() -> Iterator[Row]:
    """Capture, the survey and the plan of a whole network."""
    for library, name in MODELS:
        torch.manual_seed(0)
        make = torchvision.models.get_model if library == "torchvision" else timm.create_model
        model: nn.Module = make(name).eval()
        image = torch.zeros(1, 3, 224, 224)
        traced = fxgrow.trace(model, (image,))
        sides: dict[str, Side] = {
            "trace": lambda _, m=model, x=image: uncompared(m, x, analysed=False),  # type: ignore[misc]  # bound early
            "plan": lambda _, t=traced: whole(t),  # type: ignore[misc]
            "here": lambda _, t=traced: at_one_size(whole(t)),  # type: ignore[misc]
            "forward": lambda _, m=model, x=image: forward(m, x),  # type: ignore[misc]
        }
        if importlib.util.find_spec("nncf") is not None:
            sides["nncf"] = lambda _, m=model, x=image: nncf_graph(m, x)  # type: ignore[misc]
        what = f"{library}'s {name}"
        try:
            took = interleaved(sides, FEW, time.process_time)
        except TooLong as error:
            yield Row(SECTION, what, target=f"< {SECONDS:.0f} s", verdict=f"missed: {error}")
            continue
        both = [a + b for a, b in zip(took["trace"], took["plan"], strict=True)]
        yield alone(SECTION, what, both, below=SECONDS)
        without = [a + b for a, b in zip(took["trace"], took["here"], strict=True)]
        yield alone(SECTION, f"{what}, proved at the example's sizes alone", without, below=SECONDS)
        yield compare(SECTION, what, "one forward pass", both, took["forward"])
        if "nncf" in took:
            yield compare(SECTION, what, "nncf's build_nncf_graph", both, took["nncf"])


def whole(traced: fx.GraphModule) -> Callable[[], object]:
    """`inspect` and `plan_grow` of a model that has not been analysed."""
    twin = fx.GraphModule(traced, traced.graph)
    twin.meta.update(traced.meta)
    FakeTensorMode.cache_clear()
    REMEMBERED.clear()

    def call() -> object:
        fxgrow.inspect(twin)
        return fxgrow.plan_grow(twin, widen=2.0)

    return call


def at_one_size(call: Callable[[], object]) -> Callable[[], object]:
    """The same as if the model took inputs of one size only, so that nothing is proved again at other sizes."""

    def alone() -> object:
        second = Analysis.second
        Analysis.second = lambda *_: None  # type: ignore[method-assign]
        try:
            return call()
        finally:
            Analysis.second = second  # type: ignore[method-assign]

    return alone


def forward(model: nn.Module, image: Tensor) -> Callable[[], object]:
    """One forward pass."""

    def call() -> object:
        with torch.no_grad():
            return model(image)

    return call


def nncf_graph(model: nn.Module, image: Tensor) -> Callable[[], object]:
    """The graph that nncf makes of a model, which has to be wrapped before."""
    hooks = importlib.import_module("nncf.torch.function_hook")
    build = importlib.import_module("nncf.torch.function_hook.nncf_graph.nncf_graph_builder").build_nncf_graph
    wrapped = hooks.wrap_model(copy.deepcopy(model))
    return lambda: build(wrapped, image)
