"""The plan: what a growth changes, as plain data. It holds no tensors and does not know who applies it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from ..capture.decomposition.attention import Decomposition
from ..rules.mixing import MULTIPLIED
from .insertion import Insert
from .layout import AxisGrowth, leaves, size
from .limits import odd_header
from .serialize import malformed, read, write

Path = tuple[str | int, ...]
"""A place in an fx node's arguments: ("args", 1, 0) or ("kwargs", "size", 2)."""


STATISTIC = "statistic"
"""The path of an edit that makes a mean, a norm or a variance divide by what it divided by before: (family, axes as
written in the call, none for all, whether they are kept, number). A mean or a norm is multiplied by the number, of a
variance it is the correction."""
STATISTICS = MULTIPLIED | {"var", "std", "var_mean", "std_mean"}
SPLIT = "split"
"""The path of an edit that turns a call (chunk, say) into a torch.split at written places: (sizes, axis)."""

FOLLOWED = "followed"
"""Begins the path of an edit that puts arithmetic behind a computed number, for one consumer: (factor, divisor,
difference). What follows is the place in the consumer's arguments. Whole numbers are multiplied first, then divided."""
RECOMPUTED = "recomputed"
"""Begins the path of an edit that computes a number anew for one consumer, with other numbers in its arithmetic: (node,
place in its arguments, number) for each of them."""
AXES = "axes"
"""The path of an edit that puts guards behind a node, an input mostly: the model raises FXG010 where it has one of
some numbers of axes, (lowest, highest) for each guard, because the growth does not keep the function there."""
Ranks = tuple[int, int | None]
"""A number of axes, twice; or the lowest, and None: it and all above."""


@dataclass(frozen=True, slots=True)
class TensorEdit:
    """A parameter or buffer that changes; `names` are all it goes by.

    `fill` says how entries without a state of their own are drawn: "weights" match the spread of the old entries,
    "units" are taken from old units (affine parameters, running statistics, PReLU slopes).
    """

    names: tuple[str, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]
    axes: tuple[AxisGrowth, ...]
    fill: str
    padding: tuple[int, ...] = ()
    """Rows that stay zero: the padding row of an embedding."""
    scale: float = 1.0
    """What every entry, old and new, is multiplied by: the scale of a norm over a grown axis."""

    @property
    def states(self) -> tuple[str, ...]:
        """What its new blocks hold, axis by axis."""
        return tuple(leaf.state for growth in self.axes for leaf in leaves(growth.layout))

    @property
    def rounds(self) -> bool:
        """Whether old entries, or means of them, have to be rounded: not where they are kept, copied or halved."""
        shares = [Counter(leaf.source) for g in self.axes for leaf in leaves(g.layout) if leaf.state == "split"]
        halved = all((count + 1).bit_count() == 1 for share in shares for count in share.values())
        return "mean" in self.states or not halved or math.frexp(self.scale)[0] != 0.5


@dataclass(frozen=True, slots=True)
class ModuleEdit:
    """Attributes of a module that hold sizes."""

    path: str
    attributes: tuple[tuple[str, object, object], ...]
    """(name, old, new)."""


@dataclass(frozen=True, slots=True)
class NodeEdit:
    """A number in the arguments of an fx node: a size that is written out, or one that is pinned."""

    node: str
    path: Path
    old: object
    new: object

    def explain(self) -> str:
        """The edit in one line."""
        if self.path == (AXES,):
            axes = " or ".join(number_of_axes(*ranks) for ranks in cast(tuple[Ranks, ...], self.new))
            return f"{self.node}: inputs for which it has {axes}, instead of {self.old}, raise FXG010"
        if self.path[0] == FOLLOWED:
            return f"{self.node} {_place(self.path[1:])}: {self.old} -> {_change(self.new, str(self.old))}"
        if self.path[0] == RECOMPUTED:
            places = cast(tuple[tuple[str, Path, object], ...], self.new)
            text = ", ".join(
                f"{_change(new, 'its present value')} as {_place(path)} of {node}" for node, path, new in places
            )
            return f"{self.node} {_place(self.path[1:])}: {self.old} -> computed anew with {text}"
        return f"{self.node} {_place(self.path)}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class SkipEdit:
    """A skip path that is adapted where it enters a join.

    `node` consumes the skip path, whose present source is fx node `source`. With `kind` "pad" a call of
    `fxgrow.functional.adapt_skip` is put between them, or changed if it is there; with "conv" a 1x1 convolution, or a
    linear layer where the channels are last; with "linear" a linear layer to which the channels are moved, and from
    which they are moved back.
    """

    node: str
    source: str
    position: int
    """Which operand of the join the skip path is."""
    kind: str
    axis: int
    """Of channels; counted from the end if it is negative, where models with inputs of other ranks have them there."""
    rank: int
    keep: int
    pairs: tuple[tuple[int, int], ...]
    read: int
    """Channels of the skip path afterwards."""
    width: int
    """Channels at the join afterwards."""
    copies: tuple[tuple[int, int], ...] = ()
    """Channels at the join that the skip path lacks, and those that they are copies of; the others are zero."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One set of units that grows."""

    label: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Size of a model: parameters, bytes of parameters and buffers, multiply–adds for the example inputs, times two."""

    parameters: int
    bytes: int
    flops: int


@dataclass(frozen=True, slots=True, weakref_slot=True, repr=False)
class Plan:
    """A proved growth, ready to be applied to the model it was made for, or to another copy of it."""

    title: str
    scheme: str
    seed: int
    init: str
    growths: tuple[Growth, ...]
    tensors: tuple[TensorEdit, ...]
    modules: tuple[ModuleEdit, ...]
    nodes: tuple[NodeEdit, ...]
    skips: tuple[SkipEdit, ...]
    proof: tuple[str, ...]
    eval_only: tuple[str, ...]
    notes: tuple[str, ...]
    before: Cost
    after: Cost
    model: str = ""
    """Digest of the graph, the modules and the ties of the model that the plan was made for."""
    noise: float = 0.0
    """What is added to entries that follow from old ones, as a share of the spread of the old ones."""
    openings: tuple[Decomposition, ...] = ()
    """Calls that are written out, because they cannot express the growth as they are; done before all other edits."""
    inserts: tuple[Insert, ...] = ()
    """New blocks, those behind one node in a row."""
    clone_keys: tuple[tuple[str, str], ...] = ()
    """Where blocks were cloned: names in the result's state_dict that differ from those of the deeper model of the same
    class, and what they are there."""

    redrawn: tuple[str, ...] = ()
    """Nodes that draw random numbers in evaluation mode too, of which there are more after the growth: the outputs keep
    their distribution, and single draws are others."""
    then: tuple[Plan, ...] = ()
    """Plans for the result of this one, applied in the same stroke."""

    @property
    def next_steps(self) -> tuple[Plan, ...]:
        """The plans that are applied to the result of this one, in the same call; `then` in JSON."""
        return self.then

    def to_json(self) -> str:
        """The plan as text, to be kept, read again by `from_json` and applied to another copy of the model.

        Raises:
            UsageError: it holds a function of the user's (a block factory), which cannot be written as data.
        """
        return write(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """A plan from text. Its names and sizes are compared with the model when it is applied, not here.

        Raises:
            UsageError: no plan, a plan of another version, or a damaged one; the message says where.
        """
        found = read(cls, text)
        for plan in found.every():
            problem = odd_header(plan.title, plan.scheme, plan.seed)
            if problem:
                raise malformed("plan", problem)
        return found

    def every(self) -> Iterator[Plan]:
        """This plan and those that follow it."""
        yield self
        for following in self.then:
            yield from following.every()

    def explain(self) -> str:
        """The plan as text: what grows, what it costs, each tensor, each edit, and why the function stays."""
        lines = [self.title, ""]
        lines += [f"  {g.label}: {g.old} -> {g.new} units" for g in self.growths]
        b, a = self.before, self.after
        lines += [
            f"  parameters {b.parameters:,} -> {a.parameters:,} ({_ratio(a.parameters, b.parameters)})",
            f"  bytes      {b.bytes:,} -> {a.bytes:,} ({_ratio(a.bytes, b.bytes)})",
            f"  FLOPs      {b.flops:,} -> {a.flops:,} ({_ratio(a.flops, b.flops)}), for the example inputs",
            "",
            "tensors",
        ]
        width = max((len(_name(t.names)) for t in self.tensors), default=0)
        for t in self.tensors:
            states = ", ".join(
                f"axis {g.axis}: {'/'.join(dict.fromkeys(leaf.state for leaf in leaves(g.layout)))}" for g in t.axes
            )
            lines.append(f"  {_name(t.names):<{width}}  {_shape(t.old)} -> {_shape(t.new)}  new units {states}")
        lines += [line for insert in self.inserts for line in insert.explain()]
        edits = [f"  {m.path}: {', '.join(f'{n} {o} -> {v}' for n, o, v in m.attributes)}" for m in self.modules]
        lines += ["", "module attributes", *edits] if edits else []
        edits = [f"  {n.explain()}" for n in self.nodes]
        lines += ["", "graph constants", *edits] if edits else []
        edits = [f"  {o.node}" for o in self.openings]
        lines += ["", "calls written out as plain operators on the same parameters", *edits] if edits else []
        edits = [f"  {_skip(s)}" for s in self.skips]
        lines += ["", "skip paths", *edits] if edits else []
        lines += ["", f"why the function stays the same (scheme {self.scheme})", *(f"  {p}" for p in self.proof)]
        if self.eval_only:
            lines.append(f"  in evaluation mode only, because of: {', '.join(self.eval_only)}")
        if self.redrawn:
            lines.append(f"  the same distribution, but other random draws, because of: {', '.join(self.redrawn)}")
        lines += [f"  {note}" for note in self.notes]
        lines += [line for plan in self.then for line in ("", "then", "", plan.explain())]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        end = list(self.every())[-1].after
        titles = "; then ".join(plan.title for plan in self.every())
        return f"<Plan {titles}: {self.before.parameters:,} -> {end.parameters:,} parameters>"


def number_of_axes(low: int, high: int | None) -> str:
    """Some numbers of axes in words."""
    if high is None:
        return f"{low} axes or more"
    return "1 axis" if low == 1 else f"{low} axes"


def _change(new: object, now: str) -> str:
    if not isinstance(new, tuple):
        return f"{new:g}" if isinstance(new, float) else str(new)
    factor, divisor, difference = new
    parts = [f" x {factor:g}" if factor != 1 else "", f" // {divisor}" if divisor != 1 else ""]
    return "".join([now, *parts, f" + {difference:g}" if difference else ""])


def _place(path: Path) -> str:
    return ".".join(map(str, path))


def grown_shape(shape: tuple[int, ...], axes: tuple[AxisGrowth, ...]) -> tuple[int, ...]:
    """A shape after the growth of some axes."""
    new = list(shape)
    for growth in axes:
        new[growth.axis] = size(growth.layout, new=True)
    return tuple(new)


def _ratio(after: int, before: int) -> str:
    return f"x{after / before:.2f}" if before else "from nothing"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _name(names: tuple[str, ...]) -> str:
    return " = ".join(names)


def _skip(s: SkipEdit) -> str:
    if s.kind != "pad":
        return f"{s.source} -> {s.node}: 1x1 convolution, {s.read} -> {s.width} channels"
    fresh = sum(count for _, count in s.pairs)
    parts = [f"{s.keep} channels pass"]
    parts += [f"{fresh} pairs enter as left - right"] if fresh else []
    missing = s.width - s.keep
    parts += [f"{missing} missing channels are {'copies' if s.copies else 'zero'}"] if missing > 0 else []
    return f"{s.source} -> {s.node}: {', '.join(parts)}"
