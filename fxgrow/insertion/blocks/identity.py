"""Layers that change nothing at first: the identity of Net2DeeperNet, the factor of Network Morphism."""

from __future__ import annotations

import torch

from ...plans.insertion import Call, Layers, Link, Part, options
from ..context import Activation
from .base import ENTRY, Pen, Wish

EPSILON = 2.0**-17
"""ε of a batch norm that starts as the identity, or more in half precision; near batch norm's usual 1e-5."""


def identity(wish: Wish, *, linear: bool, dtype: torch.dtype) -> Layers:
    """σ(norm(layer(x))) with a layer as wide as its input: a convolution, or a linear layer over the last axis.

    The norm's ε is such that `dtype` holds the running variance 1 - ε, so that √(σ² + ε) = 1 without rounding.
    """
    pen = Pen(wish)
    if linear:
        y = pen.linear("linear", ENTRY, wish.features, wish.features)
        units = wish.features
    else:
        y = pen.conv("conv", ENTRY, wish.channels, wish.channels, wish.kernel, bias=wish.norm == "none")
        units = wish.channels
    if wish.norm == "batch":
        kind = f"BatchNorm{max(wish.spatial, 1)}d"
        y = pen.module("norm", y, kind, num_features=units, eps=max(EPSILON, torch.finfo(dtype).eps / 2))
    pen.activate("act", y)
    return pen.done()


def factor(wish: Wish, *, linear: bool, width: int, groups: int, bias: bool) -> Layers:
    """φ(layer(x)), with a 1x1 convolution or a linear layer and a P-activation that starts linear."""
    pen = Pen(wish)
    inputs = wish.features if linear else wish.channels
    if linear:
        y = pen.module("linear", ENTRY, "Linear", in_features=inputs, out_features=width, bias=bias)
    else:
        y = pen.conv("conv", ENTRY, inputs, width, groups=groups, bias=bias)
    p_activation(pen, y, wish.activation)
    return pen.done()


def p_activation(pen: Pen, source: str, activation: Activation | None) -> str:
    """(1 - a) x + a σ(x) with a learnable `a` that starts at 0 (Network Morphism's P-activation); for ReLU this is
    nn.PReLU, whose slope below zero is 1 - a."""
    if activation is None:
        return source
    if activation.kind == "ReLU":
        return pen.module("act", source, "PReLU", num_parameters=1, init=1.0)
    full = pen.activate("act", source)
    pen.parts.append(Part("a", "Parameter", options(value=0.0)))
    pen.calls.append(Call("a", "get_attr", "a", ()))
    bend = pen.call("bend", "operator.sub", Link(full), Link(source))
    return pen.call("bent", "operator.add", Link(source), Link(pen.call("part", "operator.mul", Link("a"), Link(bend))))
