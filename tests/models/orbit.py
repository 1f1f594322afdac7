"""The models on which orbits and algebra are compared, beside the zoo: each asks for one kind of rearrangement."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import DenseNet, ShuffleNetV2, SwinTransformer, shufflenet_v2_x1_0
from torchvision.models.swin_transformer import PatchMerging
from torchvision.ops import SqueezeExcitation

from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import Program
from fxgrow.models_zoo import ZOO

from .weight import Pairs


class FlattenNet(nn.Module):
    """conv -> flatten -> linear, twice over the same channels: a channel becomes a run of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.drop = nn.Dropout(inplace=True)
        self.norm = nn.BatchNorm1d(6 * 16)
        self.fc1 = nn.Linear(6 * 16, 8)
        self.fc2 = nn.Linear(6 * 16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(F.relu(self.conv(x))).flatten(1)
        z: Tensor = self.head(F.relu(self.fc1(self.norm(y)) + self.fc2(y)))
        return z


class Merging(nn.Module):
    """An embedding, swin's patch merging and a head; `norm=False` leaves out the norm that freezes it all."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.fc = nn.Linear(8, 12)
        self.merge = PatchMerging(12) if norm else PatchMerging(12, norm_layer=lambda width: nn.Identity())
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.fc(self.embed(x).permute(0, 2, 3, 1)))
        z: Tensor = self.head(F.gelu(self.merge(y)).mean((1, 2)))
        return z


class GatedNet(nn.Module):
    """torchvision's squeeze-and-excitation between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.gate = SqueezeExcitation(12, 6)
        self.conv2 = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.gate(F.relu(self.norm(self.conv1(x)))))
        return y


class Heads(nn.Module):
    """Attention written out: features viewed as (head, unit), scores that keep the heads, and a scale for each head."""

    def __init__(self, *, features: int = 10, heads: int = 3, unit: int = 4) -> None:
        super().__init__()
        self.heads, self.unit = heads, unit
        self.qkv = nn.Linear(features, 3 * heads * unit)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = nn.Linear(heads * unit, 4)

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (pieces[n].view(2, -1, self.heads, self.unit).transpose(1, 2) for n in range(3))
        scores = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        z: Tensor = self.out((scores @ v).transpose(1, 2).flatten(2))
        return z


class Repeated(nn.Module):
    """Channels beside themselves, in a cat and, the other way round, in a stack that is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.conv1 = nn.Conv2d(12, 4, 1)
        self.conv2 = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        z: Tensor = self.conv1(torch.cat([y, y], 1)) + self.conv2(torch.stack([y, -y], 2).flatten(1, 2))
        return z


def group_normed(model: nn.Module, groups: Callable[[int], int]) -> nn.Module:
    """The model with a group norm in place of every batch norm; `groups` tells how many for so many channels."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(groups(child.num_features), child.num_features))
    return model


_densenet = partial(DenseNet, growth_rate=8, block_config=(2, 3), num_init_features=16, bn_size=2, num_classes=10)
_SWIN = {"patch_size": [2, 2], "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": [2, 2]}

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "shufflenet_v2_x1_0": (partial(shufflenet_v2_x1_0, weights=None), (2, 3, 64, 64)),
    "shufflenet_v2, widths by 8": (partial(ShuffleNetV2, [4, 8, 4], [24, 32, 64, 128, 256]), (2, 3, 64, 64)),
    "densenet, group norm of 4s": (lambda: group_normed(_densenet(), lambda n: n // 4), (2, 3, 32, 32)),
    "densenet, 4 groups": (lambda: group_normed(_densenet(), lambda n: 4), (2, 3, 32, 32)),
    "patch merging": (Merging, (2, 3, 16, 16)),
    "patch merging, no norm": (partial(Merging, norm=False), (2, 3, 16, 16)),
    "swin": (partial(SwinTransformer, **_SWIN, num_classes=4), (2, 3, 16, 16)),
    "squeeze and excitation": (GatedNet, (2, 3, 8, 8)),
    "conv, flatten, linear": (FlattenNet, (2, 3, 4, 4)),
    "attention heads": (Heads, (2, 5, 10)),
    "a map of two volumes": (partial(Pairs, one=False), (4, 6)),
    "repeated channels": (Repeated, (2, 3, 4, 4)),
}
"""What to build, and the shape of its input."""


def program_of(name: str) -> Program:
    """Lower a model of `MODELS` or of the zoo."""
    if name in MODELS:
        build, shape = MODELS[name]
        inputs: tuple[Tensor, ...] = (torch.zeros(shape),)
    else:
        build, inputs = ZOO[name].build, ZOO[name].example_inputs()
    torch.manual_seed(0)
    return lower(Snapshot(torch.fx.symbolic_trace(build().eval())), inputs)
