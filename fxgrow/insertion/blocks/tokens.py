"""Blocks over the last axis: a multi-layer perceptron and a pre-norm transformer block."""

from __future__ import annotations

from ...errors import Kind, usage
from ...plans.insertion import Call, Layers, Link
from .base import ENTRY, BlockBuilder, BlockSpec

_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"


def mlp(spec: BlockSpec) -> Layers:
    """Return the block x + linear(σ(linear(norm(x)))); `hidden` defaults to the number of features. Batch and group
    norms follow the first linear layer instead."""
    builder, width = BlockBuilder(spec), spec.width(spec.features)
    behind = spec.norm in ("batch", "group")
    y = ENTRY if behind else builder.norm("norm", ENTRY, spec.features)
    y = builder.linear("linear1", y, spec.features, width)
    y = builder.activate("act", builder.norm("norm", y, width) if behind else y)
    builder.add("add", ENTRY, builder.linear("linear2", y, width, spec.features))
    return builder.done()


def transformer(spec: BlockSpec) -> Layers:
    """Return the block y = x + attention(norm(x)); y + linear(σ(linear(norm(y)))); `hidden` defaults to four times the
    number of features.

    Attention consists of separate layers (q, k, v, scaled_dot_product_attention, out), so that the number of heads and
    their width can grow.
    """
    if len(spec.shape) != 3:
        raise usage(
            Kind.BAD_OPTION,
            f"a transformer block takes (batch, tokens, features), not {len(spec.shape)} axes",
            hint='block="mlp", or block="clone" for a copy of a block that the network has',
        )
    size, heads = spec.features, spec.heads
    if size % heads:
        raise usage(Kind.BAD_OPTION, f"{size} features do not split into {heads} heads", hint=f"heads={_divisor(size)}")
    builder = BlockBuilder(spec)
    y = builder.norm("norm1", ENTRY, size)
    for name in ("q", "k", "v"):
        builder.linear(name, y, size, size)
        builder.call(f"{name}_split", "unflatten", Link(name), -1, (heads, size // heads))
        builder.call(f"{name}_heads", "transpose", Link(f"{name}_split"), 1, 2)
    operands = (Link("q_heads"), Link("k_heads"), Link("v_heads"))
    causal = (("is_causal", True),) if spec.causal else ()
    builder.calls.append(Call("attention", "call_function", _ATTENTION, operands, causal))
    builder.call("joined", "transpose", Link("attention"), 1, 2)
    builder.call("merged", "flatten", Link("joined"), -2)
    y = builder.add("add1", ENTRY, builder.linear("out", "merged", size, size))
    width = spec.width(4 * size)
    z = builder.linear("linear1", builder.norm("norm2", y, size), size, width)
    builder.add("add2", y, builder.linear("linear2", builder.activate("act", z), width, size))
    return builder.done()


def _divisor(size: int) -> int:
    return next(h for h in (8, 4, 2, 1) if size % h == 0)
