"""Growths with a fault planted, and the node that must be named for each."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.functional import adapt_skip
from fxgrow.models_zoo import ZOO

from ..insertion.deepened import traced


class Residual(nn.Module):
    """A stem, a residual block whose second convolution ends in a batch norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop, self.fc = nn.Dropout(0.0), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.stem(x)))
        z = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(y)))))
        z = F.relu(z + y).mean((2, 3))
        out: Tensor = self.fc(self.drop(z))
        return out


class Scaled(nn.Module):
    """A width that is used as a number, so that it has to be pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.up(x))
        y = y / y.shape[-1] ** 0.5
        z: Tensor = self.down(y)
        return z


@cache
def original(name: str) -> fx.GraphModule:
    """A model by name, traced, in evaluation mode; it is never written to."""
    if name in ("tokens", "vit"):
        return traced(name)[0]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        if name == "pre_norm_encoder":
            entry = ZOO[name]
            return fxgrow.trace(entry.build().double().eval(), tuple(x.double() for x in entry.example_inputs()))
        model, x = (Residual(), torch.randn(2, 3, 6, 6)) if name == "residual" else (Scaled(), torch.randn(3, 5))
        return fxgrow.trace(model.double().eval(), (x.double(),))


def shifted(name: str, *index: int) -> Callable[[fx.GraphModule], None]:
    """One entry of a tensor changes."""

    def plant(gm: fx.GraphModule) -> None:
        tensor: Tensor = operator.attrgetter(name)(gm)
        with torch.no_grad():
            tensor[index] += 0.25

    return plant


def attribute(path: str, name: str, value: object) -> Callable[[fx.GraphModule], None]:
    """An attribute of a module changes."""
    return lambda gm: setattr(gm.get_submodule(path), name, value)


def argument(position: int, value: object, *, of: Callable[[fx.Node], bool]) -> Callable[[fx.GraphModule], None]:
    """An argument of the first such node changes."""

    def plant(gm: fx.GraphModule) -> None:
        next(n for n in gm.graph.nodes if of(n)).update_arg(position, value)
        gm.recompile()

    return plant


def wide(name: str, node: str, **options: Any) -> Callable[[], tuple[fx.GraphModule, fx.GraphModule]]:
    """A model before and after it is widened."""
    return lambda: (original(name), fxgrow.widen(original(name), node, **options))


def deep(name: str, after: str, **options: Any) -> Callable[[], tuple[fx.GraphModule, fx.GraphModule]]:
    """A model before and after it is deepened."""
    return lambda: (original(name), fxgrow.deepen(original(name), after, **options))


def both() -> tuple[fx.GraphModule, fx.GraphModule]:
    """Wider, deeper and wider again, in three plans."""
    before = original("residual")
    once = fxgrow.deepen(fxgrow.widen(before, "conv1", by=3), "norm2")
    return before, fxgrow.widen(once, "stem", skip="reshape", scheme="net2net", by=2)


@dataclass(frozen=True)
class Case:
    """A growth, a fault, the node that must be named, and what must be suspected."""

    grow: Callable[[], tuple[fx.GraphModule, fx.GraphModule]]
    plant: Callable[[fx.GraphModule], None]
    node: str
    suspect: str


COUPLED, RESHAPED = wide("residual", "conv1"), wide("residual", "stem", skip="reshape", adapter="conv", by=3)
MEAN = wide("pre_norm_encoder", "embed", scheme="mean", by=2)
OPENED = wide("vit", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight")
ATTENTION = "encoder.layers.encoder_layer_0.self_attention"
CASES: dict[str, Case] = {
    "an old weight": Case(COUPLED, shifted("conv2.weight", 0, 0), "conv2", "conv2.weight: its old entries"),
    "a new column": Case(COUPLED, shifted("conv2.weight", 0, 7), "conv2", "conv2.weight: its new halves are not opp"),
    "a new row": Case(COUPLED, shifted("conv1.weight", 7), "conv2", "conv1.weight: its new halves are not equal"),
    "an old statistic": Case(COUPLED, shifted("norm1.running_var", 1), "norm1", "norm1.running_var: its old"),
    "a new statistic": Case(COUPLED, shifted("norm1.running_mean", 8), "conv2", "norm1.running_mean: its new halves"),
    "an epsilon": Case(COUPLED, attribute("norm1", "eps", 1e-2), "norm1", "norm1.eps: 0.01, not 1e-05"),
    "a mode that differs": Case(COUPLED, attribute("drop", "p", 0.5), "drop", "drop.p: 0.5, not 0.0"),
    "an adapter's old entry": Case(RESHAPED, shifted("adapt_skip_add.weight", 0, 1), "adapt_skip_add", ""),
    "an adapter that lets a channel in": Case(
        wide("residual", "stem", skip="reshape", by=3),
        argument(2, 5, of=lambda n: n.target is adapt_skip),
        "adapt_skip",
        "",
    ),
    "a share": Case(
        wide("residual", "conv1", scheme="net2net", by=2),
        shifted("conv2.weight", 0, 6),
        "conv2",
        "conv2.weight: its copies differ from their originals",
    ),
    "a copy": Case(
        wide("residual", "conv1", scheme="net2net", by=2),
        shifted("conv1.weight", 6),
        "conv2",
        "conv1.weight: its copies differ from their originals",
    ),
    "a mean": Case(
        MEAN, shifted("embed.weight", 13), "blocks_0_norm1", "embed.weight: its new entries are not the mean"
    ),
    "an epsilon for a width": Case(
        MEAN, attribute("blocks.1.norm1", "eps", 1e-5), "blocks_1_norm1", "blocks.1.norm1.eps: 1e-05, not 8.57"
    ),
    "a scale for a width": Case(
        MEAN, shifted("blocks.1.norm2.weight", 3), "blocks_1_norm2", "blocks.1.norm2.weight: its old entries"
    ),
    "a pinned number": Case(
        wide("scaled", "up"),
        argument(1, 3.0, of=lambda n: n.target is operator.truediv),
        "truediv",
        "truediv args.1: 3.0",
    ),
    "a deeper block": Case(
        deep("tokens", "layers.1"),
        shifted("layers.1_deeper1.linear2.weight", 0, 1),
        "layers_1_deeper1_add2",
        "layers.1_deeper1.linear2.weight: its new halves",
    ),
    "a silent block": Case(
        deep("residual", "norm2", scheme="zero"),
        shifted("norm2_deeper1.conv2.weight", 0),
        "norm2_deeper1_add",
        "norm2_deeper1.conv2.weight: its entries are not zero",
    ),
    "opened attention, an old row": Case(
        OPENED, shifted(f"{ATTENTION}.in_proj_weight", 1), f"{ATTENTION}.in_proj_weight".replace(".", "_"), ATTENTION
    ),
    "opened attention, its scale": Case(
        OPENED,
        lambda gm: next(n for n in gm.graph.nodes if "attention" in n.name and "scale" in n.kwargs).update_kwarg(
            "scale", 0.5
        ),
        "scaled_dot_product_attention",
        "",
    ),
    "three plans, the first": Case(both, shifted("conv2.weight", 0, 1), "conv2", "conv2.weight: its old entries"),
    "three plans, the last": Case(both, shifted("conv1.weight", 0, 6), "conv1", "conv1.weight: its copies"),
}
