"""Orbits: which units of a model's parameters belong together, found by pushing labels through the real operators.

This is the oracle of the algebra of axes, and shares nothing with it. Every unit of every parameter axis gets a number.
Operators that rearrange are run as they are, at their real sizes, on tensors of such numbers; where operands meet
element by element, their numbers are related. It knows no symbolic sizes, no products and no sums, and refuses nothing.

Not followed: axes of one unit, units that an index tensor picks, and the axes of graph inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fxgrow.capture.program.program import STORED, Op, Origin, Program, Value

from .labels import Labels, Planes, merge, narrow, place, split
from .places import bilinear, looked_up, put, written
from .recurrences import OPERATORS, recur

_REARRANGING = """view _unsafe_view reshape view_as reshape_as flatten unflatten ravel permute transpose swapaxes
    swapdims t mT numpy_T movedim moveaxis squeeze unsqueeze expand expand_as broadcast_to repeat select slice narrow
    chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split unbind pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle flip roll constant_pad_nd repeat_interleave"""
_UNIT_BY_UNIT = """contiguous detach alias lift_fresh lift_fresh_copy dropout feature_dropout hardswish
    leaky_relu copy log_sigmoid softmax log_softmax cumsum layer_norm rms_norm"""
"""Beyond those that torch tags as pointwise."""
_REDUCING = "sum mean amax amin max min argmax argmin prod std var norm linalg_vector_norm logsumexp"
_WINDOW = re.compile(r"(?:pool|upsample_\w+|exact|reflection_pad|replication_pad)([123])d")
_VECTORS = ("weight", "bias", "running_mean", "running_var")


class Orbits:
    """The labels of a program. `born` tells for a label its parameter (index of the value), axis and unit."""

    def __init__(self, program: Program) -> None:
        self.labels = Labels()
        self.born: dict[int, tuple[int, int, int]] = {}
        self.unknown: set[str] = set()
        """Operators that labels did not get through."""
        self._planes: dict[int, Planes] = {}
        for op in program.ops:
            self._walk(op)
        self.blocks = self.labels.close()

    def of(self, value: Value) -> Planes:
        """The planes of a value; the units of a parameter are born when it is first read."""
        if value.index not in self._planes:
            made: Planes = []
            for axis, size in enumerate(value.shape if value.origin is Origin.PARAMETER else ()):
                row = [self.labels.new() for _ in range(size)]
                self.born.update((label, (value.index, axis, k)) for k, label in enumerate(row))
                made.append(place(torch.tensor(row, dtype=torch.int64), [axis], len(value.shape)))
            self._planes[value.index] = [plane for plane in made if plane.numel() > 1]
        return self._planes[value.index]

    def _walk(self, op: Op) -> None:
        if op.name == STORED:  # units that lie in one place of a tensor, before and after
            before = op.args["before"]
            self.added(len(before.shape), self.of(before), self.of(op.args["after"]))
            return
        handler = handler_of(op)
        results = handler(self, op) if handler is not None else []
        if handler is None:
            self.unknown.add(op.name)
        for k, out in enumerate(op.outputs):
            self._planes[out.index] = self.labels.tidy(results[k]) if k < len(results) else []

    # -- families of operators ----------------------------------------------------------------------------------

    def rearrange(self, op: Op, planes: Planes | None = None) -> list[Planes]:
        """Run the operator itself on labels; where it takes numbers of units, any will do for the planes given."""
        func = getattr(getattr(torch.ops.aten, op.name.removeprefix("aten::")), op.overload or "default")
        x = op.args["self"]
        results: list[Planes] = [[] for _ in op.outputs]
        for plane in self.of(x) if planes is None else planes:
            args = {k: _zeros(v) for k, v in op.args.items()}
            out = func(**{**args, "self": plane.expand(x.shape).contiguous()})
            for some, one in zip(results, [out] if isinstance(out, Tensor) else out, strict=True):
                some.append(one)
        return results

    def elementwise(self, op: Op) -> list[Planes]:
        """Units that stand in the same place under broadcasting meet."""
        return [self.added(len(op.outputs[0].shape), *(self.of(v) for v in op.inputs()))] * len(op.outputs)

    def added(self, rank: int, *sides: Planes) -> Planes:
        """Planes of a broadcast result."""
        wide = [[p.reshape([1] * (rank - p.dim()) + list(p.shape)) for p in side] for side in sides]
        self.labels.meet_all(wide)
        return [plane for side in wide for plane in side]

    def per_channel(self, op: Op) -> list[Planes]:
        """Vectors that lie along axis 1 of the first operand."""
        x = next(op.inputs())
        vectors = [self.of(op.args[n]) for n in _VECTORS if isinstance(op.args.get(n), Value)]
        rows = [[place(p, [1], len(x.shape)) for p in planes] for planes in vectors]
        return [self.added(len(x.shape), self.of(x), *rows)]

    def gate(self, op: Op) -> list[Planes]:
        """glu: the halves of an axis meet."""
        planes, shape = self.of(op.args["self"]), op.outputs[0].shape
        at = op.args["dim"] % len(shape)
        halves = [[narrow(p, at, start, shape[at]) for p in planes] for start in (0, shape[at])]
        return [self.added(len(shape), *halves)]

    def join(self, op: Op) -> list[Planes]:
        """cat and stack: along the axis one after the other, along all others on top of each other."""
        out, new, start = op.outputs[0], op.name == "aten::stack", 0
        at = op.args["dim"] % len(out.shape)
        shared: list[Planes] = []
        own: Planes = []
        for x in op.args["tensors"]:
            if x.shape == (0,):
                continue
            planes = [p.unsqueeze(at) for p in self.of(x)] if new else self.of(x)
            size = 1 if new else x.shape[at]
            shared.append([p for p in planes if p.shape[at] == 1])
            for p in planes:
                if p.shape[at] > 1:
                    wide = p.new_zeros([out.shape[k] if k == at else n for k, n in enumerate(p.shape)])
                    wide.narrow(at, start, size).copy_(p)
                    own.append(wide)
            start += size
        return [[*own, *self.added(len(out.shape), *shared)]]

    def reduced(self, x: Value, over: Sequence[int], out: Value) -> Planes:
        """Labels that remain when some axes are summed over, kept as one unit or dropped."""
        keep = [k for k in range(len(x.shape)) if k not in over]
        planes = [self.labels.project(p, keep) for p in self.of(x)]
        if len(out.shape) == len(x.shape):
            return planes
        return [p.reshape([n for k, n in enumerate(p.shape) if k in keep]) for p in planes]

    def reduce(self, op: Op) -> list[Planes]:
        """A statistic over some axes, or all."""
        if "other" in op.args:  # max and min of two
            return self.elementwise(op)
        x, dim = next(op.inputs()), op.args.get("dim")
        rank = len(x.shape)
        over = [dim] if isinstance(dim, int) else dim or range(rank)
        return [self.reduced(x, [k % rank for k in over], out) for out in op.outputs]

    def window(self, op: Op) -> list[Planes]:
        """Something slides over the last axes."""
        x, found = next(op.inputs()), _WINDOW.search(op.name)
        count = int(found[1]) if found else len(op.args["pad"]) // 2
        return [self.reduced(x, range(len(x.shape) - count, len(x.shape)), out) for out in op.outputs]

    # -- sums of products ---------------------------------------------------------------------------------------

    def contract(self, left: tuple[Planes, list[str]], right: tuple[Planes, list[str]], out: list[str]) -> Planes:
        """Name the axes of both operands; axes of one name meet, those that the result lacks are summed over."""
        names = list(dict.fromkeys([*out, *left[1], *right[1]]))
        sides = [[place(p, [names.index(n) for n in row], len(names)) for p in planes] for planes, row in (left, right)]
        self.labels.meet_all(sides)
        keep = range(len(out))
        planes = [self.labels.project(p, keep) for side in sides for p in side]
        return [p.reshape(p.shape[: len(out)]) for p in planes]

    def convolve(self, op: Op) -> list[Planes]:
        """Channels are (group, channel of the group); windows are summed over."""
        x, weight, groups = op.args["input"], op.args["weight"], op.args["groups"]
        transposed = "transpose" in op.name
        windows, kernel = ([f"{name}{k}" for k in range(len(weight.shape) - 2)] for name in "wk")
        batch = ["n"] if len(x.shape) == len(weight.shape) else []
        data = [split(p, len(batch), groups) for p in self.of(x)]
        rows = [split(p, 0, groups) for p in self.of(weight)]
        inner = ["g", "i", "o"] if transposed else ["g", "o", "i"]
        out = [*batch, "g", "o", *(f"y{k}" for k in windows)]
        planes = self.contract((data, [*batch, "g", "i", *windows]), (rows, [*inner, *kernel]), out)
        size = op.outputs[0].shape[len(batch)]
        result = [merge(p, len(batch), (groups, size // groups)) for p in planes]
        bias = [] if op.args["bias"] is None else self.of(op.args["bias"])
        return [self.added(len(out) - 1, result, [place(p, [len(batch)], len(out) - 1) for p in bias])]

    def multiply(self, op: Op) -> list[Planes]:
        """linear, matmul and their like."""
        args, rank = op.args, len(op.outputs[0].shape)
        linear = op.name == "aten::linear"
        a, b = list(op.inputs())[:2] if "mat1" not in args and "batch1" not in args else list(op.inputs())[1:]
        rest = [f"b{k}" for k in range(max(len(a.shape), len(b.shape)))]
        row = [*rest[: len(a.shape) - 2], "r", "k"] if len(a.shape) > 1 else ["k"]
        column = ["c", "k"] if linear else [*rest[: len(b.shape) - 2], "k", "c"] if len(b.shape) > 1 else ["k"]
        row, column = ([*reversed(side[:-2]), *side[-2:]] for side in (row, column))  # batch axes count from the right
        longer = max(row[:-2], column[:-2], key=len)
        out = [*longer, *(n for n in ("r", "c") if n in row + column)]
        planes = self.contract((self.of(a), row), (self.of(b), column), out)
        bias = args.get("bias") if linear else args.get("self") if a is not args.get("self") else None
        return [self.added(rank, planes, [] if bias is None else self.of(bias))]

    def attend(self, op: Op) -> list[Planes]:
        """scaled_dot_product_attention with as many heads for keys as for queries."""
        q, k, v = (op.args[name] for name in ("query", "key", "value"))
        if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
            return []
        rest = [f"b{n}" for n in range(len(q.shape) - 2)]
        scores = self.contract((self.of(q), [*rest, "l", "d"]), (self.of(k), [*rest, "s", "d"]), [*rest, "l", "s"])
        return [self.contract((scores, [*rest, "l", "s"]), (self.of(v), [*rest, "s", "e"]), [*rest, "l", "e"])]

    def einsum(self, op: Op) -> list[Planes]:
        """Two operands, an explicit result, no letter twice in a term."""
        left, _, out = op.args["equation"].replace(" ", "").partition("->")
        terms = [list(term) for term in left.split(",")]
        a, b = op.args["tensors"]
        return [self.contract((self.of(a), terms[0]), (self.of(b), terms[1]), list(out))]


def _zeros(arg: Any) -> Any:
    """An argument with zeros for tensors."""
    if isinstance(arg, list | tuple):
        return [_zeros(item) for item in arg]
    return torch.zeros(arg.shape, dtype=torch.int64) if isinstance(arg, Value) else arg


Handler = Callable[[Orbits, Op], list[Planes]]


def handler_of(op: Op) -> Handler | None:
    """How labels get through an operator; None where they do not."""
    name = op.name.removeprefix("aten::")
    packet: Any = getattr(torch.ops.aten, name, None) if op.name.startswith("aten::") else None
    if packet is None:
        return None
    if name == "pad":
        return Orbits.rearrange if op.args["mode"] == "constant" else Orbits.window
    tags = {tag for overload in packet.overloads() for tag in getattr(packet, overload).tags}
    otherwise = Orbits.elementwise if torch.Tag.pointwise in tags else None
    return HANDLERS.get(name, Orbits.window if _WINDOW.search(name) else otherwise)


_FAMILIES: tuple[tuple[str, Handler], ...] = (
    (_REARRANGING, Orbits.rearrange),
    (_UNIT_BY_UNIT, Orbits.elementwise),
    (_REDUCING, Orbits.reduce),
    ("to _to_copy float type_as fill zero", lambda orbits, op: [orbits.of(op.args["self"])]),  # of others not the units
    ("zeros ones full new_zeros new_ones new_full zeros_like ones_like arange linspace", lambda orbits, op: []),
    ("cat stack", Orbits.join),
    ("slice_scatter select_scatter", written),
    ("index_put", put),
    ("glu", Orbits.gate),
    ("batch_norm instance_norm group_norm prelu", Orbits.per_channel),
    ("embedding embedding_bag index index_select gather", looked_up),
    ("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", Orbits.convolve),
    ("linear matmul bmm mm mv addmm baddbmm", Orbits.multiply),
    ("scaled_dot_product_attention", Orbits.attend),
    ("einsum", Orbits.einsum),
    ("bilinear", bilinear),
    (OPERATORS, recur),
)
HANDLERS: dict[str, Handler] = {name: handler for names, handler in _FAMILIES for name in names.split()}
