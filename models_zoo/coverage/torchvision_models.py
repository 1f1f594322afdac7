"""Every float model of torchvision, untrained, with small inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from .subjects import Subject

IMAGE = (2, 3, 64, 64)
CLIP = (2, 3, 8, 32, 32)
SHAPES: dict[str, tuple[int, ...]] = {
    "inception_v3": (2, 3, 96, 96),
    "maxvit_t": (1, 3, 224, 224),  # windows of 7 in each of five halvings
    "mc3_18": CLIP,
    "r2plus1d_18": CLIP,
    "r3d_18": CLIP,
    "s3d": (1, 3, 16, 224, 224),  # pools windows of 7 after five halvings
    "swin3d_b": (2, 3, 4, 64, 64),
    "swin3d_s": (2, 3, 4, 64, 64),
    "swin3d_t": (2, 3, 4, 64, 64),
    "mvit_v1_b": (2, 3, 4, 64, 64),
    "mvit_v2_s": (2, 3, 4, 64, 64),
    "vit_h_14": (2, 3, 56, 56),
}
"""Input shapes of models that do not accept an image of 64 × 64."""
PAIR = (1, 3, 128, 128)
"""Shape of the frames for optical flow, whose models halve an eighth of the size four times."""
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": 64},
    "vit_b_32": {"image_size": 64},
    "vit_h_14": {"image_size": 56},
    "vit_l_16": {"image_size": 64},
    "vit_l_32": {"image_size": 64},
}
SCALED = ("RCNN", "Retina", "FCOS")
"""Detectors that first resize their images, to 800 pixels by default."""


def torchvision_subjects() -> list[Subject]:
    """Return every model that `torchvision.models` lists, except quantised ones."""
    models: Any = importlib.import_module("torchvision.models")
    names: list[str] = [name for name in models.list_models() if not name.startswith("quantized_")]
    return [Subject(f"torchvision.{name}", partial(_build, name), _inputs(name)) for name in names]


def _kind(name: str) -> str:
    """Return the package of a model ("detection", "segmentation", "video" …), or ""."""
    models: Any = importlib.import_module("torchvision.models")
    parts = str(models.get_model_builder(name).__module__).split(".")
    return parts[2] if len(parts) > 3 else ""


def _build(name: str) -> nn.Module:
    models: Any = importlib.import_module("torchvision.models")
    options = dict(OPTIONS.get(name, {}))
    kind = _kind(name)
    if kind in ("detection", "segmentation"):
        options["weights_backbone"] = None
    if kind == "detection" and "ssd" not in name:
        options |= {"min_size": 64, "max_size": 64}
    if name.startswith("mvit"):
        return _small_mvit(partial(models.get_model, name))
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def _small_mvit(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a video transformer for four frames of 64 × 64, a size that torchvision's functions do not accept."""
    mvit: Any = importlib.import_module("torchvision.models.video.mvit")
    made = mvit.MViT

    def small(**options: Any) -> nn.Module:
        model: nn.Module = made(**{**options, "spatial_size": (64, 64), "temporal_size": 4})
        return model

    with patch.object(mvit, "MViT", small):
        return build()


def _inputs(name: str) -> Callable[[], tuple[Any, ...]]:
    kind = _kind(name)
    if kind == "detection":
        return _pictures
    return partial(_noise, *(PAIR, PAIR) if kind == "optical_flow" else (SHAPES.get(name, IMAGE),))


def _pictures() -> tuple[list[Tensor]]:
    return ([torch.rand(3, 64, 64), torch.rand(3, 64, 48)],)


def _noise(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)
