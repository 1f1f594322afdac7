"""The plan: all changes of a growth as plain data, without tensors. `fxgrow.apply` applies it to a model."""

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
from .limits import header_problem
from .serialize import malformed, read, write

Path = tuple[str | int, ...]
"""A position in the arguments of an fx node: ("args", 1, 0) or ("kwargs", "size", 2)."""


STATISTIC = "statistic"
"""Path of an edit that preserves the value of a mean, a norm or a variance over a growing axis: (family, dimensions as
in the call or () for all, keepdim, number). The number is the factor of a mean or a norm, and the correction of a
variance."""
STATISTICS = MULTIPLIED | {"var", "std", "var_mean", "std_mean"}
"""Names of the operators to which a `STATISTIC` edit applies."""
SPLIT = "split"
"""Path of an edit that replaces a call such as chunk by a torch.split with explicit sizes: (sizes, dimension)."""

FOLLOWED = "followed"
"""Prefix of the path of an edit that applies arithmetic to a computed number for one consumer: (factor, divisor,
difference). The rest of the path is the position in the consumer's arguments. Whole numbers are multiplied first, then
divided."""
RECOMPUTED = "recomputed"
"""Prefix of the path of an edit that computes a number again for one consumer, with other constants in its arithmetic:
(node, position in its arguments, number) for each constant."""
AXES = "axes"
"""Path of an edit that inserts guards behind a node, usually an input: the model raises FXG010 if it has one of some
numbers of axes, (lowest, highest) for each guard, for which the growth does not preserve the function."""
Ranks = tuple[int, int | None]
"""A number of axes, twice; or the lowest number and None: that number and all above."""


@dataclass(frozen=True, slots=True)
class TensorEdit:
    """A change of a parameter or buffer; `names` are all its names in the model.

    `fill` says how random new entries are drawn: "weights" from a distribution with the standard deviation of the old
    entries, "units" from old units that are chosen at random (affine parameters, running statistics, PReLU slopes).
    """

    names: tuple[str, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]
    axes: tuple[AxisGrowth, ...]
    fill: str
    padding: tuple[int, ...] = ()
    """Rows that stay zero, such as the padding row of an embedding."""
    scale: float = 1.0
    """Factor of all entries, old and new: a norm over a grown axis needs another scale."""

    @property
    def states(self) -> tuple[str, ...]:
        """The states of its new units, axis by axis."""
        return tuple(leaf.state for growth in self.axes for leaf in leaves(growth.layout))

    @property
    def rounds(self) -> bool:
        """Whether old entries or their means are rounded: not if they are kept, copied or divided by powers of two."""
        shares = [Counter(leaf.source) for g in self.axes for leaf in leaves(g.layout) if leaf.state == "split"]
        halved = all((count + 1).bit_count() == 1 for share in shares for count in share.values())
        return "mean" in self.states or not halved or math.frexp(self.scale)[0] != 0.5


@dataclass(frozen=True, slots=True)
class ModuleEdit:
    """A change of attributes of a module that hold sizes, such as `out_channels`."""

    path: str
    attributes: tuple[tuple[str, object, object], ...]
    """(name, old, new)."""


@dataclass(frozen=True, slots=True)
class NodeEdit:
    """A change of a number in the arguments of an fx node, such as a size in a call of view."""

    node: str
    path: Path
    old: object
    new: object

    def explain(self) -> str:
        """Describe the edit in one line."""
        if self.path == (AXES,):
            axes = " or ".join(number_of_axes(*ranks) for ranks in cast(tuple[Ranks, ...], self.new))
            return f"{self.node}: inputs for which it has {axes}, instead of {self.old}, raise FXG010"
        if self.path[0] == FOLLOWED:
            return f"{self.node} {_place(self.path[1:])}: {self.old} -> {_change(self.new, str(self.old))}"
        if self.path[0] == RECOMPUTED:
            places = cast(tuple[tuple[str, Path, object], ...], self.new)
            text = ", ".join(
                f"{_change(new, 'its current value')} as {_place(path)} of {node}" for node, path, new in places
            )
            return f"{self.node} {_place(self.path[1:])}: {self.old} -> computed again with {text}"
        return f"{self.node} {_place(self.path)}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class SkipEdit:
    """An adapter on a skip path, where it is added to a main path of another width.

    `node` is the join, and `source` the fx node from which the skip path comes. With `kind` "pad" a call of
    `fxgrow.functional.adapt_skip` is inserted between them, or changed if there is one; with "conv" a 1x1 convolution
    is inserted, or a linear layer if the channels are last; with "linear" a linear layer, to which the channels are
    moved, and from which they are moved back.
    """

    node: str
    source: str
    position: int
    """Index of the operand of the join that is the skip path."""
    kind: str
    axis: int
    """Dimension of the channels; negative if the model takes inputs of other ranks and it is counted from the right."""
    rank: int
    """Number of dimensions of the skip path."""
    keep: int
    """Number of leading channels that pass unchanged."""
    pairs: tuple[tuple[int, int], ...]
    """Blocks of paired channels as (start, number of pairs); see `fxgrow.functional.adapt_skip`."""
    read: int
    """Channels of the skip path after the growth."""
    width: int
    """Channels at the join after the growth."""
    copies: tuple[tuple[int, int], ...] = ()
    """Channels at the join that the skip path does not have, as (channel, original) if they are copies; the others are
    zero."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The old and the new size of one set of units."""

    label: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Size of a model: number of parameters, bytes of parameters and buffers, and FLOPs for the example inputs (two for
    each multiply–add)."""

    parameters: int
    bytes: int
    flops: int


@dataclass(frozen=True, slots=True, weakref_slot=True, repr=False)
class Plan:
    """A growth that has been proved to preserve the function. It can be applied to the model for which it was created,
    or to a copy of that model."""

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
    """Digest of the graph, the modules and the ties of the model for which the plan was created."""
    noise: float = 0.0
    """Standard deviation of the noise that is added to entries computed from old ones, relative to that of the old
    entries."""
    openings: tuple[Decomposition, ...] = ()
    """Calls that are decomposed into plain operators because they cannot express the growth; done before all other
    edits."""
    inserts: tuple[Insert, ...] = ()
    """New blocks; several blocks after one node are chained in this order."""
    clone_keys: tuple[tuple[str, str], ...] = ()
    """If blocks were cloned: names in the state_dict of the result that differ from those of a deeper model of the same
    class, as (name, name in that model)."""

    redrawn: tuple[str, ...] = ()
    """Nodes that draw random numbers in evaluation mode too, and draw more of them after the growth: the outputs keep
    their distribution, but single draws differ."""
    then: tuple[Plan, ...] = ()
    """Plans for the result of this one, applied in the same transaction."""

    @property
    def next_steps(self) -> tuple[Plan, ...]:
        """The plans that are applied to the result of this one, in the same call; `then` in JSON."""
        return self.then

    def to_json(self) -> str:
        """Return the plan as JSON, from which `from_json` restores it, to apply it to another copy of the model.

        Raises:
            UsageError: the plan holds a user's function (a block factory), which cannot be saved.
        """
        return write(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Restore a plan from JSON. Its names and sizes are compared with the model when it is applied, not here.

        Raises:
            UsageError: the text is not a plan, or a plan of another version, or damaged; the message says where.
        """
        found = read(cls, text)
        for plan in found.every():
            problem = header_problem(plan.title, plan.scheme, plan.seed)
            if problem:
                raise malformed("plan", problem)
        return found

    def every(self) -> Iterator[Plan]:
        """Yield this plan and all plans that follow it."""
        yield self
        for following in self.then:
            yield from following.every()

    def explain(self) -> str:
        """Return the plan as text: what grows, its cost, all tensors and edits, and why the function is preserved."""
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
        lines += ["", "calls replaced by plain operators on the same parameters", *edits] if edits else []
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
    """Describe a range of numbers of axes in words."""
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
    """Return a shape after the growth of some axes."""
    new = list(shape)
    for growth in axes:
        new[growth.axis] = size(growth.layout, new=True)
    return tuple(new)


def _ratio(after: int, before: int) -> str:
    return f"x{after / before:.2f}" if before else "from 0"


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
