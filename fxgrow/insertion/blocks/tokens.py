"""Blocks over the last axis: a multi-layer perceptron, and pre-norm attention with one."""

from __future__ import annotations

from ...errors import Kind, usage
from ...plans.insertion import Call, Layers, Link
from .base import ENTRY, Pen, Wish

_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"


def mlp(wish: Wish) -> Layers:
    """x + linear(σ(linear(norm(x)))), batch norm behind the first layer instead; hidden width: as many as features."""
    pen, width = Pen(wish), wish.width(wish.features)
    behind = wish.norm in ("batch", "group")
    y = ENTRY if behind else pen.norm("norm", ENTRY, wish.features)
    y = pen.linear("linear1", y, wish.features, width)
    y = pen.activate("act", pen.norm("norm", y, width) if behind else y)
    pen.add("add", ENTRY, pen.linear("linear2", y, width, wish.features))
    return pen.done()


def transformer(wish: Wish) -> Layers:
    """y = x + attention(norm(x)); y + linear(σ(linear(norm(y)))); hidden width: four times as many as features.

    Attention is written out (q, k, v, scaled_dot_product_attention, out), so that heads and their width can grow.
    """
    if len(wish.shape) != 3:
        raise usage(
            Kind.BAD_OPTION,
            f"a transformer block takes (batch, tokens, features), not {len(wish.shape)} axes",
            hint='block="mlp", or block="clone" for a copy of a block that the network has',
        )
    size, heads = wish.features, wish.heads
    if size % heads:
        raise usage(Kind.BAD_OPTION, f"{size} features do not split into {heads} heads", hint=f"heads={_divisor(size)}")
    pen = Pen(wish)
    y = pen.norm("norm1", ENTRY, size)
    for name in ("q", "k", "v"):
        pen.linear(name, y, size, size)
        pen.call(f"{name}_split", "unflatten", Link(name), -1, (heads, size // heads))
        pen.call(f"{name}_heads", "transpose", Link(f"{name}_split"), 1, 2)
    operands = (Link("q_heads"), Link("k_heads"), Link("v_heads"))
    causal = (("is_causal", True),) if wish.causal else ()
    pen.calls.append(Call("attention", "call_function", _ATTENTION, operands, causal))
    pen.call("joined", "transpose", Link("attention"), 1, 2)
    pen.call("merged", "flatten", Link("joined"), -2)
    y = pen.add("add1", ENTRY, pen.linear("out", "merged", size, size))
    width = wish.width(4 * size)
    z = pen.linear("linear1", pen.norm("norm2", y, size), size, width)
    pen.add("add2", y, pen.linear("linear2", pen.activate("act", z), width, size))
    return pen.done()


def _divisor(size: int) -> int:
    return next(h for h in (8, 4, 2, 1) if size % h == 0)
