"""Defines steps on images with one to three spatial axes: convolutions, norms, pooling, gates, shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choose import Choose
from .parts import Do, Options, Part, divisors, width

LARGEST, MOST = 8, 12
"""Largest side of an image, and largest number of channels."""
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAXPOOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVGPOOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def rank(x: Tensor) -> int:
    """Return the number of spatial axes of an image."""
    return x.dim() - 2


def _conv_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    x, out = xs[0], width(choose, widths)
    groups = choose.pick(divisors(x.shape[1], out)) if choose.seldom(25) else 1
    stride = 2 if min(x.shape[2:]) >= 4 and choose.seldom(10) else 1
    kernel = choose.pick((1, 3))
    return {
        "out": out,
        "kernel": kernel,
        "groups": groups,
        "stride": stride,
        "bias": int(not choose.seldom(40)),
        "dilation": 2 if kernel > 1 and choose.seldom(20) else 1,
    }


def _conv(xs: Sequence[Tensor], o: Options) -> nn.Module:
    dilation = o.get("dilation", 1)
    return CONV[rank(xs[0])](
        xs[0].shape[1],
        o["out"],
        o["kernel"],
        stride=o["stride"],
        padding=o["kernel"] // 2 * dilation,
        dilation=dilation,
        groups=o["groups"],
        bias=bool(o["bias"]),
    )


def _depthwise(xs: Sequence[Tensor], o: Options) -> nn.Module:
    n = xs[0].shape[1]
    return CONV[rank(xs[0])](n, n * o["times"], 3, padding=1, groups=n)


def _up_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    out = width(choose, widths)
    return {"out": out, "groups": choose.pick(divisors(xs[0].shape[1], out)) if choose.seldom(25) else 1}


def _up(xs: Sequence[Tensor], o: Options) -> nn.Module:
    return UP[rank(xs[0])](xs[0].shape[1], o["out"], 2, stride=2, groups=o["groups"])


def _group_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"groups": choose.pick(divisors(xs[0].shape[1]))}


def _last(norm: nn.Module) -> nn.Module:
    """Make a norm over the channels of each position, between two permutations."""
    return Do(lambda m, x: m.norm(x.movedim(1, -1)).movedim(-1, 1), norm=norm)


def _shuffle(xs: Sequence[Tensor], o: Options) -> nn.Module:
    groups = o["groups"]

    def call(m: nn.Module, x: Tensor) -> Tensor:
        shape = x.shape
        y = x.view(shape[0], groups, shape[1] // groups, *(shape[k] for k in range(2, len(xs[0].shape))))
        return y.transpose(1, 2).reshape(shape[0], -1, *(shape[k] for k in range(2, len(xs[0].shape))))

    return Do(call)


def _shuffle_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"groups": choose.pick(divisors(xs[0].shape[1])[1:])}


def _se(xs: Sequence[Tensor], o: Options) -> nn.Module:
    x = xs[0]
    n, axes = x.shape[1], tuple(range(2, x.dim()))
    conv = CONV[rank(x)]
    if o["linear"]:
        tail = (1,) * rank(x)
        return Do(
            lambda m, x: x * torch.sigmoid(m.up(F.relu(m.down(x.mean(axes))))).view(x.shape[0], -1, *tail),
            down=nn.Linear(n, o["hidden"]),
            up=nn.Linear(o["hidden"], n),
        )
    return Do(
        lambda m, x: x * torch.sigmoid(m.up(F.relu(m.down(m.pool(x))))),
        pool=ADAPTIVE[rank(x)](1),
        down=conv(n, o["hidden"], 1),
        up=conv(o["hidden"], n, 1),
    )


def _se_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"hidden": choose.pick((1, 2, 3)), "linear": choose.integer(0, 1)}


def _residual_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    out = width(choose, widths) if choose.seldom(30) else xs[0].shape[1]
    return {"hidden": width(choose, widths), "out": out, "norm": choose.integer(0, 1)}


def _residual(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a block with a skip path: the identity, or a projection if the width changes."""
    r, n = rank(xs[0]), xs[0].shape[1]
    parts: dict[str, Any] = {
        "conv1": CONV[r](n, o["hidden"], 3, padding=1, bias=not o["norm"]),
        "norm": BATCH[r](o["hidden"]) if o["norm"] else nn.Identity(),
        "conv2": CONV[r](o["hidden"], o["out"], 3, padding=1),
        "skip": CONV[r](n, o["out"], 1) if o["out"] != n else nn.Identity(),
    }
    return Do(lambda m, x: F.relu(m.conv2(F.relu(m.norm(m.conv1(x)))) + m.skip(x)), **parts)


def _small(x: Tensor) -> bool:
    return 2 * max(x.shape[2:]) <= LARGEST


def _even(x: Tensor) -> bool:
    return all(n % 2 == 0 for n in x.shape[2:])


def _deep(x: Tensor) -> bool:
    return rank(x) == 2 and _small(x) and x.shape[1] % 4 == 0


def _to_tokens(m: nn.Module, x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _scale(xs: Sequence[Tensor], o: Options) -> nn.Module:
    x = xs[0]
    return Do(lambda m, x: x * m.scale, scale=nn.Parameter(torch.randn(x.shape[1], *(1,) * rank(x))))


IMAGE = ("image",)
IMAGES: dict[str, Part] = {
    "conv": Part(takes=IMAGE, make=_conv, options=_conv_options, share=16),
    "depthwise": Part(
        takes=IMAGE,
        make=_depthwise,
        options=lambda c, xs, w: {"times": c.integer(1, 2)},
        fits=lambda x: x.shape[1] <= MOST // 2,
        share=3,
    ),
    "transposed_conv": Part(takes=IMAGE, make=_up, options=_up_options, fits=_small, share=3),
    "batch_norm": Part(takes=IMAGE, make=lambda xs, o: BATCH[rank(xs[0])](xs[0].shape[1]), share=6),
    "group_norm": Part(
        takes=IMAGE, make=lambda xs, o: nn.GroupNorm(o["groups"], xs[0].shape[1]), options=_group_options, share=3
    ),
    "instance_norm": Part(
        takes=IMAGE,
        make=lambda xs, o: INSTANCE[rank(xs[0])](xs[0].shape[1], affine=bool(o["affine"])),
        options=lambda c, xs, w: {"affine": c.integer(0, 1)},
        fits=lambda x: x[0, 0].numel() > 1,
    ),
    "layer_norm_of_channels": Part(takes=IMAGE, make=lambda xs, o: _last(nn.LayerNorm(xs[0].shape[1]))),
    "rms_norm_of_channels": Part(takes=IMAGE, make=lambda xs, o: _last(nn.RMSNorm(xs[0].shape[1])), share=1),
    "layer_scale": Part(takes=IMAGE, make=_scale),
    "max_pool": Part(takes=IMAGE, make=lambda xs, o: MAXPOOL[rank(xs[0])](2), fits=_even),
    "avg_pool": Part(takes=IMAGE, make=lambda xs, o: AVGPOOL[rank(xs[0])](2), fits=_even),
    "upsample": Part(takes=IMAGE, make=lambda xs, o: nn.Upsample(scale_factor=2), fits=_small, share=1),
    "se_gate": Part(takes=IMAGE, make=_se, options=_se_options),
    "residual_block": Part(takes=IMAGE, make=_residual, options=_residual_options, share=6),
    "channel_shuffle": Part(
        takes=IMAGE, make=_shuffle, options=_shuffle_options, fits=lambda x: len(divisors(x.shape[1])) > 1
    ),
    "pixel_shuffle": Part(takes=IMAGE, make=lambda xs, o: nn.PixelShuffle(2), fits=_deep),
    "pixel_unshuffle": Part(
        takes=IMAGE,
        make=lambda xs, o: nn.PixelUnshuffle(2),
        fits=lambda x: rank(x) == 2 and _even(x) and x.shape[1] * 4 <= MOST,
        share=1,
    ),
    "flatten": Part(
        takes=IMAGE, make=lambda xs, o: nn.Flatten(), gives="flat", fits=lambda x: x[0].numel() <= 64, share=2
    ),
    "flatten_by_view": Part(
        takes=IMAGE,
        make=lambda xs, o: Do(lambda m, x: x.reshape(x.shape[0], -1)),
        gives="flat",
        fits=lambda x: x[0].numel() <= 64,
        share=1,
    ),
    "global_mean": Part(takes=IMAGE, make=lambda xs, o: Do(lambda m, x: x.flatten(2).mean(-1)), gives="flat", share=2),
    "to_tokens": Part(
        takes=IMAGE, make=lambda xs, o: Do(_to_tokens), gives="tokens", fits=lambda x: x[0, 0].numel() <= 16
    ),
}
"""All these kinds of steps, by name."""
