"""Defines steps on tokens (batch, time, channels) and flat values (batch, channels): layers, attention, recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choose import Choose
from .parts import Do, Options, Part, divisors, width

WORDS = 7
"""Size of the vocabulary."""


def _linear_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"out": width(choose, widths), "bias": int(not choose.seldom(30))}


def _linear(xs: Sequence[Tensor], o: Options) -> nn.Module:
    return nn.Linear(xs[0].shape[-1], o["out"], bias=bool(o["bias"]))


def _hidden_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"hidden": width(choose, widths)}


def _mlp(xs: Sequence[Tensor], o: Options) -> nn.Module:
    n = xs[0].shape[-1]
    return Do(
        lambda m, x: x + m.down(F.gelu(m.up(m.norm(x)))),
        norm=nn.LayerNorm(n),
        up=nn.Linear(n, o["hidden"]),
        down=nn.Linear(o["hidden"], n),
    )


def _swiglu(xs: Sequence[Tensor], o: Options) -> nn.Module:
    n = xs[0].shape[-1]
    return Do(
        lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)),
        gate=nn.Linear(n, o["hidden"], bias=False),
        up=nn.Linear(n, o["hidden"], bias=False),
        down=nn.Linear(o["hidden"], n, bias=False),
    )


def _heads_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    n = xs[0].shape[-1]
    return {"heads": choose.pick(divisors(n)), "causal": int(choose.seldom(30)), "skip": int(choose.seldom(50))}


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape to (batch, heads, time, width of a head)."""
    return x.view(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _attention(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make an attention of three layers with views as heads and the fused operator."""
    n, heads, causal, skip = xs[0].shape[-1], o["heads"], bool(o["causal"]), o["skip"]

    def call(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), heads) for layer in (m.q, m.k, m.v))  # type: ignore[operator]  # layers
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = m.out(y.transpose(1, 2).flatten(2))  # type: ignore[operator]  # a layer
        return x + out if skip else out

    return Do(call, q=nn.Linear(n, n), k=nn.Linear(n, n), v=nn.Linear(n, n), out=nn.Linear(n, n))


def _by_hand(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make an attention of elementary operations, with a scale computed from a size."""
    n, heads, skip = xs[0].shape[-1], o["heads"], o["skip"]

    def call(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), heads) for layer in (m.q, m.k, m.v))  # type: ignore[operator]  # layers
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        out: Tensor = m.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[operator]  # a layer
        return x + out if skip else out

    return Do(call, q=nn.Linear(n, n), k=nn.Linear(n, n), v=nn.Linear(n, n), out=nn.Linear(n, n))


def _packed(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make an attention with one layer for queries, keys and values."""
    n, heads, causal, skip = xs[0].shape[-1], o["heads"], bool(o["causal"]), o["skip"]

    def call(m: nn.Module, x: Tensor) -> Tensor:
        packed = m.qkv(x)  # type: ignore[operator]  # a layer
        q, k, v = packed.view(x.shape[0], x.shape[1], 3, heads, n // heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = m.out(y.transpose(1, 2).flatten(2))  # type: ignore[operator]  # a layer
        return x + out if skip else out

    return Do(call, qkv=nn.Linear(n, 3 * n), out=nn.Linear(n, n))


def _multihead(xs: Sequence[Tensor], o: Options) -> nn.Module:
    n = xs[0].shape[-1]
    attend = nn.MultiheadAttention(n, o["heads"], batch_first=True, dropout=0.0)
    return Do(lambda m, x: m.attend(x, x, x, need_weights=False)[0] + (x if o["skip"] else 0), attend=attend)


def _rnn_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {
        "hidden": width(choose, widths),
        "layers": 1 + choose.seldom(30),
        "both": int(choose.seldom(30)),
    }


def _recurrent(kind: Callable[..., nn.Module]) -> Part:
    def make(xs: Sequence[Tensor], o: Options) -> nn.Module:
        layer = kind(
            xs[0].shape[-1],
            o["hidden"],
            num_layers=o["layers"],
            bidirectional=bool(o["both"]),
            batch_first=True,
        )
        return Do(lambda m, x: m.layer(x)[0], layer=layer)

    return Part(takes=("tokens",), make=make, options=_rnn_options, share=2)


def _mix(xs: Sequence[Tensor], o: Options) -> nn.Module:
    """Make a layer over time, as in MLP-Mixer."""
    t = xs[0].shape[1]
    return Do(
        lambda m, x: x + m.down(F.gelu(m.up(x.transpose(1, 2)))).transpose(1, 2),
        up=nn.Linear(t, o["hidden"]),
        down=nn.Linear(o["hidden"], t),
    )


def _as_image(xs: Sequence[Tensor], o: Options) -> nn.Module:
    height = o["height"]
    return Do(lambda m, x: x.transpose(1, 2).unflatten(2, (height, -1)))


def _unflatten(xs: Sequence[Tensor], o: Options) -> nn.Module:
    parts = o["channels"]
    return Do(lambda m, x: x.view(x.shape[0], parts, x.shape[1] // parts))


def _unflatten_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    return {"channels": choose.pick(divisors(xs[0].shape[1])[1:])}


def _einsum(xs: Sequence[Tensor], o: Options) -> nn.Module:
    return Do(
        lambda m, x: torch.einsum("...i,oi->...o", x, m.weight),
        weight=nn.Parameter(torch.randn(o["hidden"], xs[0].shape[-1]) * 0.3),
    )


TOKENS, BOTH = ("tokens",), ("tokens", "flat")
VECTORS: dict[str, Part] = {
    "linear": Part(takes=BOTH, make=_linear, options=_linear_options, share=12),
    "einsum": Part(takes=BOTH, make=_einsum, options=_hidden_options, share=1),
    "mlp_block": Part(takes=BOTH, make=_mlp, options=_hidden_options, share=4),
    "swiglu": Part(takes=BOTH, make=_swiglu, options=_hidden_options, share=2),
    "layer_norm": Part(takes=BOTH, make=lambda xs, o: nn.LayerNorm(xs[0].shape[-1]), share=3),
    "rms_norm": Part(takes=BOTH, make=lambda xs, o: nn.RMSNorm(xs[0].shape[-1]), share=2),
    "batch_norm_flat": Part(takes=("flat",), make=lambda xs, o: nn.BatchNorm1d(xs[0].shape[-1]), share=4),
    "attention": Part(takes=TOKENS, make=_attention, options=_heads_options, share=3),
    "attention_by_hand": Part(takes=TOKENS, make=_by_hand, options=_heads_options, share=2),
    "packed_attention": Part(takes=TOKENS, make=_packed, options=_heads_options, share=3),
    "multihead_attention": Part(takes=TOKENS, make=_multihead, options=_heads_options, share=2),
    "rnn": _recurrent(nn.RNN),
    "lstm": _recurrent(nn.LSTM),
    "gru": _recurrent(nn.GRU),
    "mixer": Part(takes=TOKENS, make=_mix, options=_hidden_options, share=1),
    "softmax_over_time": Part(takes=TOKENS, make=lambda xs, o: Do(lambda m, x: x.softmax(1)), share=1),
    "softmax": Part(takes=BOTH, make=lambda xs, o: Do(lambda m, x: x.softmax(-1)), share=1),
    "time_mean": Part(takes=TOKENS, make=lambda xs, o: Do(lambda m, x: x.mean(1)), gives="flat", share=2),
    "first_token": Part(takes=TOKENS, make=lambda xs, o: Do(lambda m, x: x[:, 0]), gives="flat", share=1),
    "to_image": Part(
        takes=TOKENS,
        make=_as_image,
        options=lambda c, xs, w: {"height": c.pick(divisors(xs[0].shape[1]))},
        gives="image",
    ),
    "unflatten": Part(
        takes=("flat",),
        make=_unflatten,
        options=_unflatten_options,
        gives="image",
        fits=lambda x: len(divisors(x.shape[1])) > 1,
    ),
    "embedding": Part(
        takes=("words",),
        make=lambda xs, o: nn.Embedding(WORDS, o["out"], padding_idx=0 if o.get("padding") else None),
        options=lambda c, xs, w: {"out": width(c, w), "padding": int(c.seldom(30))},
        gives="tokens",
    ),
}
"""All these kinds of steps, by name."""
