"""What a second widening costs beside a plain copy of the model, and what a widened model costs beside a native one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torchvision
from timing import Row, Side, compare, interleaved
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import fxgrow
from fxgrow.models_zoo import Bottleneck, ResNet
from fxgrow.rewrite.new_values import grown

FIRST = "layer1.0.conv1"
THEN = (
    "layer1.1.conv1",
    "layer2.0.conv1",
    "layer2.1.conv2",
    "layer2.3.conv1",
    "layer3.0.conv1",
    "layer3.2.conv2",
    "layer3.5.conv1",
    "layer4.0.conv1",
    "layer4.2.conv2",
)
"""One for each round, from all stages: small tensors and large ones."""
STREAM = ("layer1.0.conv3", "layer2.0.conv3", "layer3.0.conv3", "layer4.0.conv3")
"""Producers of the four residual streams; each widens every block of its stage."""
WIDENINGS = {
    "in place": "inplace=True, re-analysis included",
    "stream": "inplace=True, a whole residual stream",
    "copied": "inplace=False, of the first's result (re-analysis)",
    "unchanged": "inplace=False, of the same model (analysis fits)",
}
COPIES = {"traced": "deepcopy of the GraphModule", "plain": "deepcopy of the nn.Module"}
PAIRS = 61
LEAST = 0.05
"""Seconds that one sample of a running model takes at least."""
AROUND = 0.03


def second_widening() -> Iterator[Row]:
    """resnet50, one volume twice as wide; the model has been widened once before the clock starts.

    That first widening leaves an analysis behind. It no longer fits the model that it widened, so whatever has to be
    analysed anew is inside the timed call; only what `fxgrow` itself carries over is reused. torch's fake tensor cache
    is emptied before the first widening, so that no round profits from another one's shapes.
    """
    section = "second widening, resnet50"
    plain: nn.Module = torchvision.models.resnet50(weights=None).eval()
    traced = fx.symbolic_trace(plain)

    def widened_once() -> fx.GraphModule:
        FakeTensorMode.cache_clear()
        return fxgrow.widen(copy.deepcopy(traced), FIRST, inplace=True)

    def in_place(names: tuple[str, ...]) -> Side:
        def prepare(number: int) -> Callable[[], object]:
            model, name = widened_once(), names[number % len(names)]
            return lambda: fxgrow.widen(model, name, inplace=True)

        return prepare

    def copied(number: int) -> Callable[[], object]:
        model, name = widened_once(), THEN[number]
        return lambda: fxgrow.widen(model, name)

    def unchanged(number: int) -> Callable[[], object]:
        FakeTensorMode.cache_clear()
        model, name = copy.deepcopy(traced), THEN[number]
        fxgrow.widen(model, FIRST)
        return lambda: fxgrow.widen(model, name)

    def deepcopy_traced(number: int) -> Callable[[], object]:
        model = widened_once()
        return lambda: copy.deepcopy(model)

    took = interleaved(
        {
            "in place": in_place(THEN),
            "traced": deepcopy_traced,
            "copied": copied,
            "unchanged": unchanged,
            "plain": lambda _: lambda: copy.deepcopy(plain),
            "stream": in_place(STREAM),
        },
        len(THEN),
    )
    for what, against, most, aim in (
        ("in place", "traced", 1.0, 0.5),
        ("in place", "plain", None, None),
        ("stream", "traced", None, None),
        ("copied", "traced", 2.5, 1.5),
        ("unchanged", "traced", 2.5, 1.5),
    ):
        yield compare(section, WIDENINGS[what], COPIES[against], took[what], took[against], most=most, aim=aim)


def whole_network() -> Iterator[Row]:
    """resnet50, every layer wider by half, in one call; beside one widening. Writing the new tensors is taken off both:
    it is timed by itself, for the same plan."""
    section = "growing a whole network, resnet50"
    traced = fx.symbolic_trace(torchvision.models.resnet50(weights=None).eval())
    fxgrow.widen(traced, FIRST)  # leaves the analysis behind, which serves all that follows
    everything, one = fxgrow.plan_grow(traced, widen=1.5), fxgrow.plan_widen(traced, FIRST, factor=1.5)
    tensors = dict(traced.state_dict(keep_vars=True))

    def written(plan: fxgrow.Plan) -> Side:
        def write() -> None:
            for edit in plan.tensors:
                grown(tensors[edit.names[0]], edit, seed=plan.seed, init=plan.init)

        return lambda _: write

    took = interleaved(
        {
            "grow": lambda _: lambda: fxgrow.grow(traced, widen=1.5),
            "grow, writing": written(everything),
            "widen": lambda _: lambda: fxgrow.widen(traced, FIRST, factor=1.5),
            "widen, writing": written(one),
            "plan": lambda _: lambda: fxgrow.plan_grow(traced, widen=1.5),
        },
        len(THEN),
    )
    rest = {k: [a - b for a, b in zip(took[k], took[f"{k}, writing"], strict=True)] for k in ("grow", "widen")}
    yield compare(
        section, "grow, without writing tensors", "one widening, without", rest["grow"], rest["widen"], most=3.0
    )
    yield compare(section, "grow, in all", "writing its tensors", took["grow"], took["grow, writing"])
    yield compare(section, "planning it", "one widening, in all", took["plan"], took["widen"])


RUNNING = "widened model running, batch 64x1x8x8, training"


def running() -> Iterator[Row]:
    """A widened zoo ResNet against the same class built with those widths: same weights, same outputs, same time."""
    grown = widened(ResNet(), ["conv1", "layer1.conv1", "layer2.conv1", "layer2.conv2", "layer3.conv1", "layer4.conv1",
                               "layer4.conv2"])  # fmt: skip
    yield from _running("zoo ResNet", grown, ResNet(widths=(32, 64, 64, 128)))
    layers = [f"layer{n}.conv{k}" for n in (1, 2, 3, 4) for k in (1, 2)]
    grown = widened(ResNet(block=Bottleneck), ["conv1", "layer2.conv3", "layer4.conv3", *layers])
    yield from _running("zoo ResNet, bottlenecks", grown, ResNet(block=Bottleneck, widths=(32, 64, 64, 128)))


def widened(model: nn.Module, nodes: list[str]) -> fx.GraphModule:
    """Every volume of the model but its input and output, twice as wide, residual streams coupled."""
    return fxgrow.widen(fx.symbolic_trace(model), nodes, skip="couple", example_inputs=(torch.zeros(2, 1, 8, 8),))


def _running(name: str, grown: fx.GraphModule, native: nn.Module) -> Iterator[Row]:
    native.load_state_dict(grown.state_dict())  # also says that every name and shape is the same
    images, labels = torch.randn(64, 1, 8, 8), torch.randint(10, (64,))
    if not torch.equal(grown.eval()(images), native.eval()(images)):
        raise AssertionError("the widened model and the native one with its weights differ")
    native_traced = fx.symbolic_trace(copy.deepcopy(native))
    models = {"grown": grown, "class": native, "traced": native_traced}
    for model in models.values():
        model.train()
    for what, step in (("forward", forward), ("forward + backward", backward)):
        count = _enough(step, native, images, labels)
        took = interleaved({k: steps(step, m, images, labels, count) for k, m in models.items()}, PAIRS)
        each = {key: [t / count for t in samples] for key, samples in took.items()}
        for ours, theirs, against in (
            ("grown", "class", "the class built so"),
            ("grown", "traced", "the class built so, traced"),
        ):
            yield compare(RUNNING, f"{name}: {what}", against, each[ours], each[theirs], around=AROUND)
        yield compare(RUNNING, "(noise: both sides native)", "traced against not", each["traced"], each["class"])


def forward(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One forward pass, gradients recorded."""
    model(images)


def backward(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One forward and one backward pass."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()


Step = Callable[[nn.Module, Tensor, Tensor], None]


def steps(step: Step, model: nn.Module, images: Tensor, labels: Tensor, count: int) -> Side:
    """Many steps as one call, for a clock that is coarser than one."""

    def call() -> None:
        for _ in range(count):
            step(model, images, labels)

    return lambda _: call


def _enough(step: Step, model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many steps a sample holds so that it takes LEAST seconds."""
    count = 1
    while min(interleaved({"": steps(step, model, images, labels, count)}, 3)[""]) < LEAST:
        count *= 2
    return count
