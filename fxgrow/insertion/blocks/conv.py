"""Convolutional blocks in 1, 2 and 3 dimensions. The last convolution follows the last norm, so its output can
cancel."""

from __future__ import annotations

from ...plans.insertion import Layers
from .base import ENTRY, BlockBuilder, BlockSpec


def basic(spec: BlockSpec) -> Layers:
    """Return the block x + conv(σ(norm(conv(x)))); `hidden` defaults to the number of channels."""
    builder, width = BlockBuilder(spec), spec.width(spec.channels)
    y = builder.conv("conv1", ENTRY, spec.channels, width, spec.kernel, bias=spec.norm == "none")
    y = builder.activate("act", builder.norm("norm", y, width))
    builder.add("add", ENTRY, builder.conv("conv2", y, width, spec.channels, spec.kernel))
    return builder.done()


def bottleneck(spec: BlockSpec) -> Layers:
    """Return the block x + conv1(σ(norm(conv_k(σ(norm(conv1(x))))))); `hidden` defaults to a quarter of the
    channels."""
    builder, width = BlockBuilder(spec), spec.width(spec.channels // 4)
    bare = spec.norm == "none"
    y = builder.conv("conv1", ENTRY, spec.channels, width, bias=bare)
    y = builder.activate("act1", builder.norm("norm1", y, width))
    y = builder.conv("conv2", y, width, width, spec.kernel, bias=bare)
    y = builder.activate("act2", builder.norm("norm2", y, width))
    builder.add("add", ENTRY, builder.conv("conv3", y, width, spec.channels))
    return builder.done()


def depthwise(spec: BlockSpec) -> Layers:
    """Return the block x + conv1(σ(norm(depthwise_k(σ(norm(conv1(x))))))); `hidden` defaults to the number of
    channels."""
    builder, width = BlockBuilder(spec), spec.width(spec.channels)
    bare = spec.norm == "none"
    y = builder.conv("conv1", ENTRY, spec.channels, width, bias=bare)
    y = builder.activate("act1", builder.norm("norm1", y, width))
    y = builder.conv("conv2", y, width, width, spec.kernel, groups=width, bias=bare)
    y = builder.activate("act2", builder.norm("norm2", y, width))
    builder.add("add", ENTRY, builder.conv("conv3", y, width, spec.channels))
    return builder.done()
