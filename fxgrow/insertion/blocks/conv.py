"""Convolution blocks, for 1, 2 and 3 window axes. The last convolution is behind the last norm, so it may cancel."""

from __future__ import annotations

from ...plans.insertion import Layers
from .base import ENTRY, Pen, Wish


def basic(wish: Wish) -> Layers:
    """x + conv(σ(norm(conv(x)))); hidden width: as many as there are channels."""
    pen, width = Pen(wish), wish.width(wish.channels)
    y = pen.conv("conv1", ENTRY, wish.channels, width, wish.kernel, bias=wish.norm == "none")
    y = pen.activate("act", pen.norm("norm", y, width))
    pen.add("add", ENTRY, pen.conv("conv2", y, width, wish.channels, wish.kernel))
    return pen.done()


def bottleneck(wish: Wish) -> Layers:
    """x + conv1(σ(norm(conv_k(σ(norm(conv1(x))))))); hidden width: a quarter of the channels."""
    pen, width = Pen(wish), wish.width(wish.channels // 4)
    bare = wish.norm == "none"
    y = pen.conv("conv1", ENTRY, wish.channels, width, bias=bare)
    y = pen.activate("act1", pen.norm("norm1", y, width))
    y = pen.conv("conv2", y, width, width, wish.kernel, bias=bare)
    y = pen.activate("act2", pen.norm("norm2", y, width))
    pen.add("add", ENTRY, pen.conv("conv3", y, width, wish.channels))
    return pen.done()


def depthwise(wish: Wish) -> Layers:
    """x + conv1(σ(norm(depthwise_k(σ(norm(conv1(x))))))); hidden width: as many as there are channels."""
    pen, width = Pen(wish), wish.width(wish.channels)
    bare = wish.norm == "none"
    y = pen.conv("conv1", ENTRY, wish.channels, width, bias=bare)
    y = pen.activate("act1", pen.norm("norm1", y, width))
    y = pen.conv("conv2", y, width, width, wish.kernel, groups=width, bias=bare)
    y = pen.activate("act2", pen.norm("norm2", y, width))
    pen.add("add", ENTRY, pen.conv("conv3", y, width, wish.channels))
    return pen.done()
