"""Layers that start without any effect: the identity layer of Net2DeeperNet and the factor of Network Morphism."""

from __future__ import annotations

import torch

from ...plans.insertion import Call, Layers, Link, Part, options
from ..context import Activation
from .base import ENTRY, BlockBuilder, BlockSpec

EPSILON = 2.0**-17
"""ε of a batch norm that starts as the identity; half precision needs a larger one. Close to the usual 1e-5."""


def identity(spec: BlockSpec, *, linear: bool, dtype: torch.dtype) -> Layers:
    """Return σ(norm(layer(x))), where the layer is as wide as its input: a convolution, or a linear layer over the last
    axis.

    The norm's ε is chosen so that `dtype` represents the running variance 1 - ε exactly and √(σ² + ε) = 1 without
    rounding.
    """
    builder = BlockBuilder(spec)
    if linear:
        y = builder.linear("linear", ENTRY, spec.features, spec.features)
        units = spec.features
    else:
        y = builder.conv("conv", ENTRY, spec.channels, spec.channels, spec.kernel, bias=spec.norm == "none")
        units = spec.channels
    if spec.norm == "batch":
        kind = f"BatchNorm{max(spec.spatial, 1)}d"
        y = builder.module("norm", y, kind, num_features=units, eps=max(EPSILON, torch.finfo(dtype).eps / 2))
    builder.activate("act", y)
    return builder.done()


def factor(spec: BlockSpec, *, linear: bool, width: int, groups: int, bias: bool) -> Layers:
    """Return φ(layer(x)), where the layer is a 1x1 convolution or linear and φ is a P-activation that starts as the
    identity."""
    builder = BlockBuilder(spec)
    inputs = spec.features if linear else spec.channels
    if linear:
        y = builder.module("linear", ENTRY, "Linear", in_features=inputs, out_features=width, bias=bias)
    else:
        y = builder.conv("conv", ENTRY, inputs, width, groups=groups, bias=bias)
    p_activation(builder, y, spec.activation)
    return builder.done()


def p_activation(builder: BlockBuilder, source: str, activation: Activation | None) -> str:
    """Add (1 - a) x + a σ(x) with a learnable `a` that starts at 0 (the P-activation of Network Morphism). For ReLU it
    is nn.PReLU, whose negative slope is 1 - a."""
    if activation is None:
        return source
    if activation.kind == "ReLU":
        return builder.module("act", source, "PReLU", num_parameters=1, init=1.0)
    full = builder.activate("act", source)
    builder.parts.append(Part("a", "Parameter", options(value=0.0)))
    builder.calls.append(Call("a", "get_attr", "a", ()))
    bend = builder.call("bend", "operator.sub", Link(full), Link(source))
    return builder.call(
        "bent", "operator.add", Link(source), Link(builder.call("part", "operator.mul", Link("a"), Link(bend)))
    )
