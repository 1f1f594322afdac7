"""Models of torchvision and timm that tests use, each small: the law of fidelity holds for all of them.

Tests take library models from here, or by the name of a subject of `fxgrow.models_zoo`, of which one of each module of
torchvision is here. Where the library's own model takes long, there is one of the same class with fewer blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from timm.models._efficientnet_builder import decode_arch_def
from torch import Tensor, nn
from torchvision.models import segmentation, swin_transformer
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.video import mvit
from torchvision.models.video import swin_transformer as video_swin

from fxgrow.models_zoo.coverage.torchvision_models import torchvision_subjects


@dataclass(frozen=True, slots=True)
class Case:
    """A model of a library, small, and the shape of its input."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 32, 32)
    training: bool = False
    compared: int = 4
    """Modes times sets of sizes in which the law compares."""

    def inputs(self) -> tuple[Tensor, ...]:
        """Noise."""
        return (torch.randn(self.shape),)


def efficientnet() -> nn.Module:
    """timm's, of three blocks: its norms bring their activation and read their mode."""
    decode: Callable[..., Any] = decode_arch_def
    blocks = decode([["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e4_c24_se0.25"]])
    model: nn.Module = timm.models.efficientnet.EfficientNet(blocks, num_classes=5, num_features=32, stem_size=16)
    return model


def convnext() -> nn.Module:
    """Two stages."""
    blocks = [
        torchvision.models.convnext.CNBlockConfig(16, 32, 1),
        torchvision.models.convnext.CNBlockConfig(32, None, 1),
    ]
    model: nn.Module = torchvision.models.ConvNeXt(blocks, num_classes=5)
    return model


def small_mvit(*, first: bool = False) -> nn.Module:
    """Three blocks, of the second version or the first."""
    blocks = [
        mvit.MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
    ]
    model: nn.Module = mvit.MViT(
        spatial_size=(16, 16),
        temporal_size=4,
        block_setting=blocks,
        residual_pool=not first,
        residual_with_cls_embed=first,
        rel_pos_embed=not first,
        proj_after_attn=not first,
        num_classes=7,
        patch_embed_kernel=(3, 3, 3),
        patch_embed_stride=(2, 4, 4),
        patch_embed_padding=(1, 1, 1),
    )
    return model


SWIN: dict[str, Any] = {"patch_size": [2, 2], "embed_dim": 8, "depths": [2, 1], "window_size": [2, 2]}


def shifted_windows() -> nn.Module:
    """A small network of torchvision's second kind of shifted windows, whose attention takes cosines."""
    second: dict[str, Any] = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,
    }
    model: nn.Module = swin_transformer.SwinTransformer(**SWIN, num_heads=[2, 2], num_classes=3, **second)
    return model


def windows_of_videos() -> nn.Module:
    """The same over videos, by products."""
    model: nn.Module = video_swin.SwinTransformer3d([2, 4, 4], 8, [2, 1], [2, 2], [2, 2, 2], num_classes=3)
    return model


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A small network of one of timm's families."""

    def make() -> nn.Module:
        model: nn.Module = timm.create_model(name, num_classes=3, **options)
        return model

    return make


def vgg11_bn() -> nn.Module:
    """torchvision's, with a smaller classifier: the original's holds half a gigabyte."""
    vgg = torchvision.models.vgg
    model: nn.Module = vgg.VGG(vgg.make_layers(vgg.cfgs["A"], batch_norm=True), num_classes=5, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 5))
    return model


def efficientnet_of_torchvision() -> nn.Module:
    """Two stages, of both kinds of blocks."""
    kinds = torchvision.models.efficientnet
    stages = [kinds.FusedMBConvConfig(2, 3, 1, 8, 8, 1), kinds.MBConvConfig(2, 3, 2, 8, 16, 2)]
    model: nn.Module = kinds.EfficientNet(stages, dropout=0.1, num_classes=5)
    return model


def segmented(kind: Any, head: Any) -> nn.Module:
    """One layer, and the head of a model for segmentation."""
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    model: nn.Module = kind(IntermediateLayerGetter(layer, {"1": "out"}), head(8, 5))
    return model


def subject(name: str) -> Callable[[], nn.Module]:
    """A model of the zoo's list of torchvision."""
    (found,) = [one for one in torchvision_subjects() if one.name == f"torchvision.{name}"]
    return found.build


_models = torchvision.models
_BEIT: dict[str, Any] = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}
_RDNET: dict[str, Any] = {"num_init_features": 16, "growth_rates": (8, 12), "num_blocks_list": (2, 1)}
_RDNET |= {"is_downsample_block": (None, True), "block_type": ("Block", "BlockESE")}
_EDGENEXT: dict[str, Any] = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "heads": (2, 2, 2, 2)}
_EDGENEXT |= {"global_block_counts": (0, 1, 0, 0)}
_SHVIT: dict[str, Any] = {"embed_dim": (16, 24, 32), "partial_dim": (4, 6, 8), "qk_dim": (4, 4, 4)}
_SHVIT |= {"depth": (1, 1, 1), "types": ("i", "s", "s")}
IMAGE, CLIP = (2, 3, 64, 64), (2, 3, 4, 16, 16)

LIBRARY: dict[str, Case] = {
    "alexnet": Case(subject("alexnet"), IMAGE),
    "vgg11_bn": Case(vgg11_bn, IMAGE),
    "resnet18": Case(partial(_models.resnet18, num_classes=5)),
    "resnext": Case(lambda: _models.ResNet(_models.resnet.Bottleneck, [1, 1, 1, 1], 5, groups=4, width_per_group=8)),
    "mobilenet_v2": Case(lambda: _models.MobileNetV2(5, 0.25)),
    "mobilenet_v3": Case(partial(_models.mobilenet_v3_small, num_classes=5)),
    "mnasnet": Case(lambda: _models.MNASNet(0.35, 5)),
    "squeezenet": Case(subject("squeezenet1_1"), IMAGE),
    "shufflenet_v2_x0_5": Case(partial(_models.shufflenet_v2_x0_5, num_classes=5)),
    "shufflenet_v2, widths by 8": Case(partial(_models.ShuffleNetV2, [4, 8, 4], [24, 32, 64, 128, 256])),
    "densenet": Case(lambda: _models.DenseNet(8, (2, 2), 16, num_classes=5)),
    "efficientnet": Case(efficientnet_of_torchvision),
    "regnet_y_400mf": Case(partial(_models.regnet_y_400mf, num_classes=5)),
    "googlenet": Case(lambda: _models.googlenet(init_weights=False, num_classes=5), IMAGE, False, 2),
    "googlenet in training": Case(lambda: _models.googlenet(init_weights=False, num_classes=5), IMAGE, True, 2),
    "inception_v3": Case(lambda: _models.inception_v3(init_weights=False, num_classes=5), (2, 3, 96, 96), False, 2),
    "swin": Case(lambda: _models.SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4], num_classes=5)),
    "swin, small windows": Case(
        partial(_models.SwinTransformer, **SWIN, num_heads=[2, 4], num_classes=4), (2, 3, 16, 16)
    ),
    "swin v2": Case(shifted_windows, (2, 3, 16, 16)),
    "swin over videos": Case(windows_of_videos, (2, 3, 4, 16, 16)),
    "mvit": Case(small_mvit, CLIP),
    "mvit, first version": Case(partial(small_mvit, first=True), CLIP),
    "vit": Case(lambda: _models.VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=5), (2, 3, 16, 16)),
    "convnext": Case(convnext),
    "maxvit": Case(lambda: _models.MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.2, num_classes=5)),
    "mc3_18": Case(partial(_models.video.mc3_18, num_classes=5), CLIP),
    "fcn": Case(lambda: segmented(segmentation.FCN, segmentation.fcn.FCNHead)),
    "lraspp": Case(subject("lraspp_mobilenet_v3_large")),
    "deeplabv3": Case(lambda: segmented(segmentation.DeepLabV3, segmentation.deeplabv3.DeepLabHead)),
    "timm efficientnet": Case(efficientnet),
    "timm densenet": Case(lambda: timm.models.densenet.DenseNet(growth_rate=8, block_config=(2, 2), num_classes=5)),
    "timm beit": Case(of_timm("beit_base_patch16_224", **_BEIT)),
    "timm beit of one block": Case(
        of_timm("beit_base_patch16_224", img_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2)
    ),
    "timm vit": Case(of_timm("vit_tiny_patch16_224", **_BEIT)),
    "timm rdnet": Case(of_timm("rdnet_tiny", **_RDNET)),
    "timm edgenext": Case(of_timm("edgenext_xx_small", **_EDGENEXT), IMAGE),
    "timm shvit": Case(of_timm("shvit_s1", **_SHVIT), IMAGE),
}
"""By name. Of s3d and raft, which take minutes, there is none; detectors cannot be traced."""
