"""Insertions: new blocks as plain data: their modules and nodes, their position in the graph, and their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layout import AxisGrowth, leaves

ENTRY = "x"
"""Name of the input of a block, within the block."""


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to the result of another call of the block, or to the input of the block."""

    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A module of a block: the name of a class of torch.nn and its options, or "Parameter" with its initial `value`."""

    path: str
    kind: str
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A node of a block. `op` and `target` are as in torch.fx; functions are given as `module.name`."""

    name: str
    op: str
    target: str
    args: tuple[object, ...] = (Link(ENTRY),)
    kwargs: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Layers:
    """A block as a list of modules and nodes; the last call computes its result."""

    parts: tuple[Part, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Copies:
    """A block that copies nodes and modules of the model. Other inputs of these nodes, such as masks, are shared."""

    entry: str
    """The fx node whose value the copied block takes as its input."""
    nodes: tuple[tuple[str, str], ...]
    """(new name, fx node), in execution order."""
    parts: tuple[tuple[str, str], ...]
    """(new path within the block, path in the model) of each module."""
    tensors: tuple[tuple[str, str], ...]
    """(new path within the block, path in the model) of each parameter and buffer."""
    afresh: bool
    """Whether the copies are initialised again; otherwise they keep the values of their originals."""


@dataclass(frozen=True, slots=True)
class Factory:
    """A block that a user's function `build(channels)` creates. A plan with such a block cannot be saved as JSON."""

    text: str
    build: Callable[[int], nn.Module]
    channels: int
    residual: bool
    """Whether the block is x + module(x); otherwise the module has its own skip path."""


Body = Layers | Copies | Factory


@dataclass(frozen=True, slots=True)
class BlockTensor:
    """A tensor of a new block; `name` is its path within the block.

    `fill` is one of: "keep" (the values of the module's initialisation, or of the original of a copy), "draw" (random,
    with the standard deviation of the tensor `like`), "zero", "identity" (Dirac kernel, identity matrix, or affine
    parameters that undo running statistics), "isometry" (the identity, and random further rows). The states of `axes`
    are applied afterwards.
    """

    name: str
    shape: tuple[int, ...]
    fill: str
    like: str = ""
    axes: tuple[AxisGrowth, ...] = ()
    learns: bool = True
    """Whether it is a parameter, not a buffer."""

    @property
    def states(self) -> tuple[str, ...]:
        """The states of its axes."""
        return tuple(leaf.state for growth in self.axes for leaf in leaves(growth.layout))


@dataclass(frozen=True, slots=True)
class Insert:
    """A new block after an fx node. Several blocks after one node are chained in the order of the plan."""

    name: str
    """Path of its modules in the model, and prefix of the names of its nodes."""
    node: str
    """The fx node whose value is the input of the block."""
    users: tuple[str, ...]
    """The fx nodes that use the result of the block instead of the node; () means all users of the node."""
    block: str
    scheme: str
    settings: tuple[tuple[str, object], ...]
    body: Body
    tensors: tuple[BlockTensor, ...]
    like: str
    """A tensor of the model nearby, whose device and, unless `dtype` is set, dtype new tensors get; "" if none."""
    silenced: tuple[str, ...]
    """How each contribution of the block is made zero, in words."""
    slow: tuple[str, ...] = ()
    """Tensors whose gradient is zero until other tensors have been updated."""
    dtype: str = ""
    """The dtype of the value at this position, e.g. "float32", if it differs from that of `like`, or from that of the
    original of a clone; "" otherwise."""

    def explain(self) -> Iterator[str]:
        """Yield the lines of `Plan.explain` for this block."""
        settings = ", ".join(f"{k} {v}" for k, v in self.settings)
        where = f"after {self.node}" + (f", before {', '.join(self.users)}" if self.users else "")
        yield f"  {self.name}: {self.block}, {where}" + (f" ({settings})" if settings else "")
        for text in self.silenced:
            yield f"    {text}"
        width = max((len(t.name) for t in self.tensors), default=0)
        for t in self.tensors:
            halves = ", ".join(f"axis {g.axis}: {leaf.state}" for g in t.axes for leaf in leaves(g.layout))
            yield f"    {t.name:<{width}}  {'x'.join(map(str, t.shape)) or 'scalar'}  {_FILLS[t.fill]}" + (
                f"; halves {halves}" if halves else ""
            )


_FILLS = {
    "keep": "initialised by its module",
    "draw": "random",
    "zero": "zero",
    "identity": "the identity",
    "isometry": "the identity, then random rows",
}


def options(**given: Any) -> tuple[tuple[str, object], ...]:
    """Return options of a module in the form in which a plan holds them: a tuple of (name, value)."""
    return tuple(given.items())
