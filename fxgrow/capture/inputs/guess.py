"""Guess the shape of an input that was not given, from the first layers that read it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

BATCH = 2
SPATIAL = (224, 32, 64, 28, 16, 8, 299, 112, 128, 256, 384, 512)
"""Common image sizes, the likeliest first. To try one costs a lowering, not a forward pass."""
LARGE_GRAY = 64
"""Images with one channel are rarely larger than this."""
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}
_FUNCTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}

Guess = Callable[[int], Any]
"""A function from the spatial size to (shape, whether the dtype is integer); for `*rest`, to a list of such pairs."""


def first_layer(gm: fx.GraphModule, place: fx.Node) -> Guess | None:
    """Return the shape that the first layers behind an input take, as a function of the spatial size; None if
    unknown."""
    if not str(place.target).startswith("*"):
        return _behind(gm, place)
    if str(place.target).startswith("**") or not place.users:
        return None
    taken: dict[int, Guess] = {}
    for user in place.users:
        number = user.args[1] if user.target is operator.getitem else None
        guess = _behind(gm, user) if type(number) is int and number >= 0 else None
        if guess is None:
            return None
        taken[number] = guess  # type: ignore[index]  # a whole number, as was looked up
    if sorted(taken) != list(range(len(taken))):
        return None
    return lambda size: [taken[k](size) for k in range(len(taken))]


def _behind(gm: fx.GraphModule, place: fx.Node) -> Guess | None:
    """Return the shape that the first known layer behind a node takes."""
    queue, seen = list(place.users), set()
    while queue:
        node = queue.pop(0)
        if node in seen:
            continue
        seen.add(node)
        guess = _takes(gm, node)
        if guess is not None:
            return guess
        queue.extend(node.users)
    return None


def _takes(gm: fx.GraphModule, node: fx.Node) -> Guess | None:
    """Return the shape of the input that a node takes, if it is a known layer."""
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        rank = _rank(module)
        if rank is not None:
            channels = int(module.in_channels)  # type: ignore[arg-type]  # a convolution has it
            return lambda size: ((BATCH, channels, *([size] * rank)), False)
        if isinstance(module, nn.Linear):
            return lambda size: ((BATCH, module.in_features), False)
        if isinstance(module, nn.Embedding):
            return lambda size: ((BATCH, 16), True)
    if node.op == "call_function" and node.target in _FUNCTIONS and len(node.args) > 1:
        weight = _weight(gm, node.args[1])
        if weight is not None:
            groups = node.kwargs.get("groups", node.args[6] if len(node.args) > 6 else 1)
            channels = weight.shape[1] * (groups if isinstance(groups, int) else 1)
            dims = _FUNCTIONS[node.target]
            return lambda size: ((BATCH, channels, *([size] * dims)), False)
    if node.op == "call_function" and node.target is nn.functional.linear:
        weight = _weight(gm, node.args[1])
        if weight is not None:
            return lambda size: ((BATCH, weight.shape[1]), False)
    return None


def _rank(module: nn.Module) -> int | None:
    """Return the number of spatial dimensions of a convolution; None for other modules."""
    for table in (_CONVOLUTIONS, _TRANSPOSED):
        for kind, rank in table.items():
            if isinstance(module, kind):
                return rank
    return None


def _weight(gm: fx.GraphModule, arg: Any) -> Tensor | None:
    """Return the parameter that an argument of a node reads; None if it is not a parameter."""
    if not (isinstance(arg, fx.Node) and arg.op == "get_attr"):
        return None
    try:
        return gm.get_parameter(str(arg.target))
    except AttributeError:
        return None
