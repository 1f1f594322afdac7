"""The models on which planted faults are watched: small, each with the growths that look at it from several sides."""

from __future__ import annotations

from fxgrow.testing.fuzzing.growths import Deepening, Growth, Whole, Widening
from fxgrow.testing.fuzzing.sketch import Input, Sketch, Step, step

IMAGE, VOLUME, SEQUENCE = Input("image", (2, 3, 4, 4)), Input("image", (2, 3, 2, 2, 2)), Input("image", (2, 3, 4))
TOKENS, FLAT, WORDS = Input("tokens", (2, 3, 4)), Input("flat", (3, 4)), Input("words", (2, 3))


def net(start: Input, *steps: Step, outputs: tuple[int, ...] = (), training: bool = False) -> Sketch:
    """A sketch with one input; its last value is returned."""
    return Sketch(inputs=(start,), steps=steps, outputs=outputs or (len(steps),), training=training)


def conv(at: int, out: int, groups: int = 1, kernel: int = 3) -> Step:
    """A convolution."""
    return step("conv", at, out=out, kernel=kernel, groups=groups, stride=1, bias=1)


def linear(at: int, out: int) -> Step:
    """A linear layer."""
    return step("linear", at, out=out, bias=1)


def point(at: int, kind: int) -> Step:
    """A function of each unit."""
    return step("pointwise", at, kind=kind)


def every(*nodes: str, by: int = 2) -> tuple[Growth, ...]:
    """One growth by every scheme; odd numbers of units, too."""
    schemes = ("r2r", "zero", "morphism", "net2net", "mean")
    named = tuple(Widening(nodes=(n,), by=by, scheme=s) for n in nodes for s in schemes)
    return (*named, *(Widening(nodes=(n,), by=3, scheme="r2r") for n in nodes))


def doubled(*nodes: str) -> tuple[Growth, ...]:
    """Copies of every unit."""
    return tuple(Widening(nodes=(n,), by=0, factor=2.0, scheme="net2net") for n in nodes)


MEAN = (Widening(nodes=("linear0",), by=2, scheme="mean"),)
MORPHISM = (Widening(nodes=("linear0",), by=2, scheme="morphism"),)
HEADS = {"heads": 2, "causal": 0, "skip": 0}
SUBJECTS: dict[str, tuple[Sketch, tuple[Growth, ...]]] = {
    "convolutions": (net(IMAGE, conv(0, 4), step("batch_norm", 1), point(2, 0), conv(3, 2)), every("conv0")),
    "convolutions of sequences": (net(SEQUENCE, conv(0, 4), point(1, 1), conv(2, 2)), every("conv0")),
    "convolutions of volumes": (net(VOLUME, conv(0, 4), point(1, 1), conv(2, 2)), every("conv0")),
    "grouped convolution": (
        net(IMAGE, conv(0, 4), conv(1, 4, groups=2), conv(2, 2)),
        (*every("conv0", by=4), Widening(nodes=("conv1",), by=0, factor=2.0, grow="groups")),
    ),
    "transposed": (net(IMAGE, conv(0, 4), step("transposed_conv", 1, out=2, groups=1)), every("conv0")),
    "linear layers": (net(FLAT, linear(0, 4), point(1, 0), linear(2, 2)), every("linear0")),
    **{
        f"pointwise {kind}": (net(FLAT, linear(0, 4), point(1, kind), linear(2, 2)), every("linear0"))
        for kind in (2, 3, 7, 8, 14)
    },
    **{
        f"pointwise {kind} before a layer norm": (
            net(FLAT, linear(0, 4), point(1, kind), step("layer_norm", 2), linear(3, 2)),
            MEAN,
        )
        for kind in (2, 7, 14)
    },
    **{
        f"pointwise {kind} before many readers": (net(FLAT, linear(0, 4), point(1, kind), linear(2, 9)), MORPHISM)
        for kind in (3, 8)
    },
    **{
        f"{name} before a layer norm": (
            net(FLAT, linear(0, 4), linear(0, 4), step("binary", 1, 2, kind=kind), step("layer_norm", 3), linear(4, 2)),
            MEAN,
        )
        for name, kind in (("product", 2), ("maximum", 3))
    },
    "glu before a layer norm": (
        net(FLAT, linear(0, 8), step("glu", 1, image=0, fused=1), step("layer_norm", 2), linear(3, 2)),
        (Widening(nodes=("linear0",), by=4, scheme="mean"),),
    ),
    **{
        f"{op} before a norm of channels": (
            net(IMAGE, conv(0, 4), step(op, 1), step("layer_norm_of_channels", 2), conv(3, 2)),
            (Widening(nodes=("conv0",), by=2, scheme="mean"),),
        )
        for op in ("prelu", "max_pool")
    },
    "einsum": (net(FLAT, linear(0, 4), point(1, 0), step("einsum", 2, hidden=2)), every("linear0")),
    "cat": (
        net(FLAT, linear(0, 3), linear(0, 3), step("cat", 1, 2, image=0), linear(3, 2)),
        (*every("linear0"), *every("linear1")),
    ),
    "cat of one volume and its function": (
        net(FLAT, linear(0, 3), point(1, 8), step("cat", 1, 2, image=0), linear(3, 9)),
        every("linear0"),
    ),
    "product": (
        net(FLAT, linear(0, 3), linear(0, 3), step("binary", 1, 2, kind=2), linear(3, 2)),
        every("linear0"),
    ),
    "maximum": (
        net(FLAT, linear(0, 3), linear(0, 3), step("binary", 1, 2, kind=3), linear(3, 2)),
        every("linear0"),
    ),
    "glu": (
        net(FLAT, linear(0, 4), step("glu", 1, image=0, fused=1), linear(2, 2)),
        (*every("linear0", by=4), Widening(nodes=("linear0",), by=0, factor=2.0)),
    ),
    "pooling": (net(IMAGE, conv(0, 4), step("max_pool", 1), conv(2, 2)), every("conv0")),
    "prelu": (net(IMAGE, conv(0, 4), step("prelu", 1), conv(2, 2)), every("conv0")),
    "group norm": (
        net(IMAGE, conv(0, 4), step("group_norm", 1, groups=2), conv(2, 2)),
        (*every("conv0", by=4), *every("conv0", by=2), Widening(nodes=("conv0",), by=0, grow="groups")),
    ),
    "mean of units": (
        net(FLAT, linear(0, 4), step("minus_mean", 1, image=0), linear(2, 2)),
        (*every("linear0"), *doubled("linear0")),
    ),
    "dropout": (net(FLAT, linear(0, 4), point(1, 10), linear(2, 2), training=True), every("linear0")),
    "shortcut": (
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
    "layer norm": (
        net(TOKENS, linear(0, 4), step("layer_norm", 1), linear(2, 2)),
        (*every("linear0"), *doubled("linear0")),
    ),
    "rms norm": (
        net(TOKENS, linear(0, 4), step("rms_norm", 1), linear(2, 2)),
        (*every("linear0"), *doubled("linear0")),
    ),
    "attention": (
        net(TOKENS, linear(0, 4), step("attention", 1, **HEADS), linear(2, 2)),
        (*every("linear0", "attention1.v", "attention1.q"), Widening(nodes=("attention1.q",), by=0, grow="groups")),
    ),
    "attention by hand": (
        net(TOKENS, linear(0, 4), step("attention_by_hand", 1, **HEADS), linear(2, 2)),
        every("linear0", "attention_by_hand1.q", "attention_by_hand1.v"),
    ),
    "packed attention": (
        net(TOKENS, linear(0, 4), step("packed_attention", 1, **HEADS), linear(2, 2)),
        (
            Widening(nodes=("packed_attention1.qkv",), by=0, factor=2.0, grow="groups"),
            Widening(nodes=("packed_attention1.qkv",), by=0, factor=2.0),
        ),
    ),
    "multihead attention": (
        net(TOKENS, linear(0, 4), step("multihead_attention", 1, **HEADS), linear(2, 2)),
        (*every("linear0"), Widening(nodes=("multihead_attention1.attend",), by=0), Whole(factor=2.0)),
    ),
    **{
        kind: (
            net(TOKENS, linear(0, 4), step(kind, 1, hidden=3, layers=2, both=0), linear(2, 2)),
            every("linear0", f"{kind}1.layer"),
        )
        for kind in ("rnn", "lstm", "gru")
    },
    "tied weights": (
        net(WORDS, step("embedding", 0, out=4), step("mlp_block", 1, hidden=3), step("tied", 2, of=0, turned=0)),
        every("embedding0"),
    ),
    "flattened": (net(IMAGE, conv(0, 3), step("max_pool", 1), step("flatten", 2), linear(3, 2)), every("conv0")),
    "shuffled": (
        net(IMAGE, conv(0, 4), step("channel_shuffle", 1, groups=2), conv(2, 2)),
        (*every("conv0", by=4), Widening(nodes=("conv0",), by=0, factor=2.0)),
    ),
    "deeper": (
        net(IMAGE, conv(0, 4), step("batch_norm", 1), point(2, 0), conv(3, 2)),
        tuple(Deepening(name="pointwise2", scheme=s) for s in ("r2r", "zero", "net2net")),
    ),
    "deeper without a norm": (
        net(TOKENS, linear(0, 4), point(1, 0), linear(2, 2)),
        tuple(Deepening(name="pointwise1", scheme=s, norm="none") for s in ("r2r", "zero", "net2net")),
    ),
}
"""By name: a model and what is asked of it."""
