"""Insertions: new blocks in a graph, as plain data: what they are made of, where they stand, what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layout import AxisGrowth, leaves

ENTRY = "x"
"""What a block calls the value that enters it."""


@dataclass(frozen=True, slots=True)
class Link:
    """The result of another call of the block, or its entry."""

    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A module of a block: a class of torch.nn by name with its options, or "Parameter" with its first `value`."""

    path: str
    kind: str
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A node of a block. `op` and `target` are as in fx; functions are written `module.name`."""

    name: str
    op: str
    target: str
    args: tuple[object, ...] = (Link(ENTRY),)
    kwargs: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Layers:
    """A block written out; the last call is its result."""

    parts: tuple[Part, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Copies:
    """A block that copies nodes and modules of the model. What its nodes read from elsewhere (masks, say) they share.

    `parts` and `tensors` are (new path within the block, path in the model), `nodes` (new name, fx node), in order.
    """

    entry: str
    nodes: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...]
    tensors: tuple[tuple[str, str], ...]
    afresh: bool
    """Whether the copies are initialised anew; otherwise they keep the values of their originals."""


@dataclass(frozen=True, slots=True)
class Factory:
    """A block made by the user's `build(channels)`. One that cannot be imported by its `text` cannot be saved."""

    text: str
    build: Callable[[int], nn.Module]
    channels: int
    residual: bool
    """Whether the block is x + module(x); otherwise the module brings its own skip path."""


Body = Layers | Copies | Factory


@dataclass(frozen=True, slots=True)
class BlockTensor:
    """A tensor of a new block; `name` is its path within the block.

    `fill`: "keep" what its module's own initialisation (or the original of a copy) put there, "draw" with the spread
    of the tensor `like`, "zero", "identity" (the map that changes nothing: Dirac kernel, unit matrix, running
    statistics undone) or "isometry" (the identity, further rows drawn). Then the states of `axes` are imposed.
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
        """What its halves are."""
        return tuple(leaf.state for growth in self.axes for leaf in leaves(growth.layout))


@dataclass(frozen=True, slots=True)
class Insert:
    """A block that is put behind an fx node; blocks behind one node form a row, in the order of the plan."""

    name: str
    """The path under which its modules stand in the model; its nodes begin with the same."""
    node: str
    """The fx node whose value enters."""
    users: tuple[str, ...]
    """The fx nodes that read the block's result from then on; () means all that read the node."""
    block: str
    scheme: str
    settings: tuple[tuple[str, object], ...]
    body: Body
    tensors: tuple[BlockTensor, ...]
    like: str
    """A tensor nearby: new ones get its device, and its dtype unless another is said. "" if there is none."""
    silenced: tuple[str, ...]
    """How each contribution is made to vanish, in words."""
    slow: tuple[str, ...] = ()
    """Tensors that no gradient reaches until others have moved."""
    dtype: str = ""
    """The dtype of what passes there, where it is another than that of `like` ("float32"), or than that of what a clone
    is a copy of. "" if it is not."""

    def explain(self) -> Iterator[str]:
        """Lines for `Plan.explain`."""
        settings = ", ".join(f"{k} {v}" for k, v in self.settings)
        where = f"behind {self.node}" + (f", in front of {', '.join(self.users)}" if self.users else "")
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
    "keep": "as its module starts",
    "draw": "drawn",
    "zero": "zero",
    "identity": "the identity",
    "isometry": "the identity, then drawn rows",
}


def options(**given: Any) -> tuple[tuple[str, object], ...]:
    """Options of a part, in the form in which a plan holds them."""
    return tuple(given.items())
