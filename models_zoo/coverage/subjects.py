"""The models on which coverage is measured: the zoo, torchvision models and torch's own transformer, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..models.catalogue import ZOO

TORCHVISION: dict[str, tuple[int, ...]] = {
    "alexnet": (2, 3, 64, 64),
    "vgg11_bn": (2, 3, 32, 32),
    "resnet18": (2, 3, 64, 64),
    "resnet50": (2, 3, 64, 64),
    "resnext50_32x4d": (2, 3, 64, 64),
    "wide_resnet50_2": (2, 3, 64, 64),
    "densenet121": (2, 3, 64, 64),
    "mobilenet_v2": (2, 3, 64, 64),
    "mobilenet_v3_small": (2, 3, 64, 64),
    "efficientnet_b0": (2, 3, 64, 64),
    "squeezenet1_0": (2, 3, 64, 64),
    "googlenet": (2, 3, 64, 64),
    "inception_v3": (2, 3, 96, 96),
    "mnasnet1_0": (2, 3, 64, 64),
    "shufflenet_v2_x1_0": (2, 3, 64, 64),
    "regnet_y_400mf": (2, 3, 64, 64),
    "r3d_18": (2, 3, 8, 32, 32),
    "vit_b_16": (2, 3, 32, 32),
    "swin_t": (2, 3, 64, 64),
    "swin_v2_t": (2, 3, 64, 64),
    "convnext_tiny": (2, 3, 64, 64),
    "maxvit_t": (1, 3, 224, 224),
    "mvit_v2_s": (1, 3, 4, 224, 224),
}
"""Torchvision models, and inputs small enough that all their growths are compared in minutes."""
VIDEO = ("r3d_18", "mvit_v2_s")
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": 32},
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A named model, and functions that build it and its inputs."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]

    def made(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return the model and its inputs in float64, after `settle`; the global random state is restored."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            inputs = tuple(x.double() if x.is_floating_point() else x for x in self.inputs())
            return settle(self.build().double(), inputs), inputs


def torchvision_model(name: str) -> nn.Module:
    """Return a torchvision model with random weights."""
    models = importlib.import_module("torchvision.models.video" if name in VIDEO else "torchvision.models")
    model: nn.Module = getattr(models, name)(**OPTIONS.get(name, {}))
    return _of_two_steps(model) if name == "mvit_v2_s" else model


def _of_two_steps(model: Any) -> nn.Module:
    """Build a video transformer with two steps in time instead of eight, which torchvision's functions do not
    expose."""
    model.pos_encoding.temporal_size = steps = 2
    for block in model.blocks:
        block.attn.rel_pos_t = nn.Parameter(block.attn.rel_pos_t[: 2 * steps - 1].detach().clone())
    made: nn.Module = model
    return made


def subjects(names: Sequence[str] | None = None) -> Iterator[Subject]:
    """Yield the named models, or all if none is named, the zoo's first."""
    known = [Subject(name, entry.build, entry.example_inputs) for name, entry in ZOO.items()]
    small = partial(nn.Transformer, 32, 4, 2, 2, dim_feedforward=64, dropout=0.0, batch_first=True)
    known.append(Subject("torch.nn.Transformer", small, partial(_noise, (3, 7, 32), (3, 5, 32))))
    for name, shape in TORCHVISION.items():
        known.append(Subject(f"torchvision.{name}", partial(torchvision_model, name), partial(_noise, shape)))
    yield from (s for s in known if names is None or s.name in names)


def _noise(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


SMALL = 1e-3
"""Parameters without a larger entry have almost no effect: branch scales start at 1e-6."""


def settle(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Give batch norms the statistics of some data and parameters some spread, as training would.

    Constant parameters (of norms, zero heads, branch scales) would hide errors.
    """
    generator = torch.Generator().manual_seed(0)
    model.eval()  # auxiliary heads in training mode need larger inputs
    with torch.no_grad():
        for parameter in model.parameters():
            _spread(parameter, generator)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        for _ in range(3 if any(m.training for m in model.modules()) else 0):
            model(*inputs)
    return model.eval()


def _spread(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Redraw a parameter if all its entries are equal: around that value, or with small values if it is close to
    zero."""
    flat = parameter.flatten()
    if not flat.is_floating_point() or not bool((flat == flat[0]).all()):
        return
    if abs(float(flat[0])) > SMALL:
        parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5, generator=generator))
    elif parameter.dim() == 1:
        parameter.uniform_(-0.2, 0.2, generator=generator)
    else:
        parameter.normal_(0, max(parameter.shape[-1], 4) ** -0.5, generator=generator)
