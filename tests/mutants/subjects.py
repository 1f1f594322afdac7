"""The models on which planted faults are watched: small, each with the growths that look at it from several sides."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F

from fxgrow.models_zoo.models.operators import subtract_sum
from fxgrow.testing.fuzzing.growths import Deepening, Whole, Widening
from fxgrow.testing.fuzzing.sketch import step

from ..models.scheme import NETS
from .subject import (
    FLAT,
    HEADS,
    IMAGE,
    MEAN,
    SEQUENCE,
    TOKENS,
    VOLUME,
    WORDS,
    Subject,
    between,
    conv,
    doubled,
    every,
    linear,
    net,
    point,
    point_net,
)

WIDENED: dict[str, Subject] = {
    "convolutions": Subject(net(IMAGE, conv(0, 4), step("batch_norm", 1), point(2, 0), conv(3, 2)), every("conv0")),
    "convolutions of sequences": Subject(net(SEQUENCE, conv(0, 4), point(1, 1), conv(2, 2)), every("conv0")),
    "convolutions of volumes": Subject(net(VOLUME, conv(0, 4), point(1, 1), conv(2, 2)), every("conv0")),
    "grouped convolution": Subject(
        net(IMAGE, conv(0, 4), conv(1, 4, groups=2), conv(2, 2)),
        (*every("conv0", by=4), *doubled("conv1", scheme="auto", grow="groups"), *doubled("conv1", scheme="auto")),
        (Widening(nodes=("conv0",), by=3, scheme="r2r"),),
    ),
    "transposed": Subject(net(IMAGE, conv(0, 4), step("transposed_conv", 1, out=2, groups=1)), every("conv0")),
    "linear layers": Subject(point_net(0), every("linear0"), every("linear2")),
    **{f"pointwise {kind}": Subject(point_net(kind), every("linear0")) for kind in (2, 3, 7, 8, 14)},
    **{
        f"pointwise {kind} before a layer norm": Subject(point_net(kind, step("layer_norm", 2), linear(3, 2)), (), MEAN)
        for kind in (2, 4, 7, 14)
    },
    **{
        f"pointwise {kind} before an rms norm": Subject(
            point_net(kind, step("rms_norm", 2), linear(3, 2)), (), every("linear0", schemes="zero")
        )
        for kind in (3, 8)
    },
    **{
        f"pointwise {kind} before many readers": Subject(
            point_net(kind, linear(2, 9)), every("linear0", schemes="morphism")
        )
        for kind in (3, 8)
    },
    **{
        f"{name} before a layer norm": Subject(
            net(FLAT, linear(0, 4), linear(0, 4), step("binary", 1, 2, kind=kind), step("layer_norm", 3), linear(4, 2)),
            (),
            MEAN,
        )
        for name, kind in (("product", 2), ("maximum", 3))
    },
    "glu before a layer norm": Subject(
        net(FLAT, linear(0, 8), step("glu", 1, image=0, fused=1), step("layer_norm", 2), linear(3, 2)),
        (),
        every("linear0", by=4, schemes="mean"),
    ),
    "max_pool before a norm of channels": Subject(
        net(IMAGE, conv(0, 4), step("max_pool", 1), step("layer_norm_of_channels", 2), conv(3, 2)),
        (),
        every("conv0", schemes="mean"),
    ),
    "random slopes before a layer norm": Subject(
        between(lambda m, x: F.layer_norm(F.rrelu(x, 0.1, 0.3), x.shape[-1:], m.scale, m.shift)),
        (),
        every("writer", schemes="mean"),
    ),
    "an operator without a rule": Subject(
        between(lambda m, x: subtract_sum(x, -1)), (), every("writer", schemes="r2r zero net2net")
    ),
    "joined with the input": Subject(
        net(FLAT, linear(0, 4), step("binary", 0, 1, kind=0), linear(2, 2)), (), every("linear0", schemes="r2r zero")
    ),
    "einsum": Subject(net(FLAT, linear(0, 4), point(1, 0), step("einsum", 2, hidden=2)), every("linear0")),
    "cat": Subject(
        net(FLAT, linear(0, 3), linear(0, 3), step("cat", 1, 2, image=0), linear(3, 2)), every("linear0", "linear1")
    ),
    "cat of one volume and its function": Subject(
        net(FLAT, linear(0, 3), point(1, 8), step("cat", 1, 2, image=0), linear(3, 9)), every("linear0")
    ),
    "product": Subject(
        net(FLAT, linear(0, 3), linear(0, 3), step("binary", 1, 2, kind=2), linear(3, 2)), every("linear0")
    ),
    "maximum": Subject(
        net(FLAT, linear(0, 3), linear(0, 3), step("binary", 1, 2, kind=3), linear(3, 2)), every("linear0")
    ),
    **{
        f"glu{name}": Subject(
            net(FLAT, linear(0, 4), step("glu", 1, image=0, fused=fused), linear(2, 2)),
            (*every("linear0", by=4), *doubled("linear0", scheme="auto")),
            (Widening(nodes=("linear0",), by=3, scheme="r2r"),),
        )
        for name, fused in (("", 1), (" in pieces", 0))
    },
    "pooling": Subject(net(IMAGE, conv(0, 4), step("max_pool", 1), conv(2, 2)), every("conv0")),
    "prelu": Subject(net(IMAGE, conv(0, 4), step("prelu", 1), conv(2, 2)), every("conv0")),
    "group norm of one group": Subject(
        net(IMAGE, conv(0, 4), step("group_norm", 1, groups=1), conv(2, 2)),
        (*doubled("conv0", scheme="net2net"), Deepening(name="group_norm1", block="basic")),
        tuple(Widening(nodes=("conv0",), by=4, scheme=scheme) for scheme in ("r2r", "zero", "mean")),
    ),
    "group norm": Subject(
        net(IMAGE, conv(0, 4), step("group_norm", 1, groups=2), conv(2, 2)),
        (*every("conv0", by=4), *doubled("conv0", scheme="auto", grow="groups")),
        (Widening(nodes=("conv0",), by=3, scheme="r2r"),),
    ),
    "groups that are read one by one": Subject(
        net(
            IMAGE,
            *(conv(0, 6), step("group_norm", 1, groups=2), conv(2, 2, groups=2)),
            *(step("split", 3, image=1, at=1), conv(4, 2), conv(5, 2)),
            outputs=(6, 7),
        ),
        (*doubled("conv0", scheme="auto"), *doubled("conv0", scheme="morphism")),
    ),
    "mean of units": Subject(
        net(FLAT, linear(0, 4), step("minus_mean", 1, image=0), linear(2, 2)),
        (*every("linear0", schemes="zero morphism mean"), *doubled("linear0")),
        every("linear0", schemes="r2r net2net"),
    ),
    "dropout": Subject(net(FLAT, linear(0, 4), point(1, 10), linear(2, 2), training=True), every("linear0")),
    "shortcut": Subject(
        net(IMAGE, conv(0, 4), step("residual_block", 1, hidden=3, out=4, norm=1), conv(2, 2)),
        (
            *every("conv0", "residual_block1.conv1"),
            *(
                Widening(nodes=(n,), by=2, scheme=s, skip="reshape", adapter=a)
                for n in ("conv0", "residual_block1.conv2")
                for s in ("r2r", "zero")
                for a in ("pad", "conv")
            ),
        ),
    ),
    "layer norm": Subject(
        net(TOKENS, linear(0, 4), step("layer_norm", 1), linear(2, 2)),
        (*MEAN, *doubled("linear0")),
        every("linear0", schemes="r2r zero net2net"),
    ),
    "rms norm": Subject(
        net(TOKENS, linear(0, 4), step("rms_norm", 1), linear(2, 2)),
        (*every("linear0", schemes="zero morphism mean"), *doubled("linear0")),
        every("linear0", schemes="r2r net2net"),
    ),
    "attention": Subject(
        net(TOKENS, linear(0, 4), step("attention", 1, **HEADS), linear(2, 2)),
        (
            *every("linear0"),
            *every("attention1.v", "attention1.q", by=4),
            *doubled("attention1.q", scheme="r2r", grow="groups"),
        ),
    ),
    "attention by hand": Subject(
        net(TOKENS, linear(0, 4), step("attention_by_hand", 1, **HEADS), linear(2, 2)),
        (*every("linear0"), *every("attention_by_hand1.q", "attention_by_hand1.v", by=4)),
    ),
    "packed attention": Subject(
        net(TOKENS, linear(0, 4), step("packed_attention", 1, **HEADS), linear(2, 2)),
        tuple(
            one
            for scheme in ("r2r", "zero", "net2net")
            for grow in ("channels", "groups")
            for one in doubled("packed_attention1.qkv", scheme=scheme, grow=grow)
        ),
    ),
    "grouped queries": Subject(
        NETS["grouped attention"],
        tuple(
            one
            for scheme in ("r2r", "zero", "net2net")
            for grow in ("channels", "groups")
            for one in doubled("q", scheme=scheme, grow=grow)
        ),
    ),
    "multihead attention": Subject(
        net(TOKENS, linear(0, 4), step("multihead_attention", 1, **HEADS), linear(2, 2)),
        (*every("linear0"), Whole(factor=2.0)),
    ),
    **{
        kind: Subject(
            net(TOKENS, linear(0, 4), step(kind, 1, hidden=3, layers=2, both=0), linear(2, 2)),
            every("linear0", f"{kind}1.layer"),
        )
        for kind in ("rnn", "lstm", "gru")
    },
    "tied, layer norm": Subject(
        NETS["tied, layer norm"], every("words", schemes="mean"), every("words", schemes="r2r zero")
    ),
    "tied, rms norm": Subject(
        NETS["tied, rms norm"], every("words", schemes="zero morphism"), every("words", schemes="r2r")
    ),
    "padding": Subject(net(WORDS, step("embedding", 0, out=4, padding=1), linear(1, 2)), every("embedding0")),
    "channels last": Subject(replace(net(IMAGE, conv(0, 4), conv(1, 2)), channels_last=True), every("conv0")),
    "flattened": Subject(net(IMAGE, conv(0, 3), step("max_pool", 1), step("flatten", 2), linear(3, 2)), every("conv0")),
    "shuffled": Subject(
        net(IMAGE, conv(0, 4), step("channel_shuffle", 1, groups=2), conv(2, 2)),
        (*every("conv0", by=4), *doubled("conv0", scheme="auto")),
        (Widening(nodes=("conv0",), by=3, scheme="r2r"),),
    ),
}
DEEPENED: dict[str, Subject] = {
    "deeper": Subject(
        net(IMAGE, conv(0, 4), step("batch_norm", 1), point(2, 0), conv(3, 2)),
        tuple(Deepening(name="pointwise2", scheme=s) for s in ("r2r", "zero", "net2net")),
    ),
    "deeper behind what is not idempotent": Subject(
        point_net(2), (), (Deepening(name="pointwise1", scheme="net2net"),)
    ),
    "deeper behind what nothing is known of": Subject(
        point_net(0), (), (Deepening(name="linear2", scheme="net2net", activation="relu"),)
    ),
    "deeper without a norm": Subject(
        net(TOKENS, linear(0, 4), point(1, 0), linear(2, 2)),
        tuple(Deepening(name="pointwise1", scheme=s, norm="none") for s in ("r2r", "zero", "net2net")),
    ),
    "factored": Subject(
        net(IMAGE, conv(0, 4), point(1, 1), conv(2, 2)), (Deepening(name="conv2", scheme="morphism", side="before"),)
    ),
    "deeper by other blocks": Subject(
        net(IMAGE, conv(0, 4), point(1, 0), conv(2, 2)),
        tuple(
            Deepening(name="pointwise1", scheme=s, block=b)
            for b in ("basic", "bottleneck", "depthwise")
            for s in ("r2r", "zero")
        ),
    ),
    "deeper by tokens": Subject(
        net(TOKENS, linear(0, 4), step("layer_norm", 1), linear(2, 2)),
        tuple(Deepening(name="linear0", scheme=s, block=b) for b in ("mlp", "transformer") for s in ("r2r", "zero")),
    ),
    "deeper by a clone": Subject(
        net(
            IMAGE,
            conv(0, 4),
            *(step("residual_block", k, hidden=3, out=4, norm=1) for k in (1, 2)),
            conv(3, 2),
        ),
        tuple(Deepening(name="add_1", scheme=s, block="clone") for s in ("r2r", "zero")),
    ),
}
SUBJECTS: dict[str, Subject] = {**WIDENED, **DEEPENED}
"""By name."""
