"""Convolutions and linear layers: sums of products over an axis, in a notation like that of einops."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed, product
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, SizeContext, State, StateContext, register, regroup

Item = str | tuple[str, str]
"""A named axis, a product `(g o)` of two, `*` for window axes, `...` for any leading axes."""
Pattern = tuple[Item, ...]
PASSING = "*"
"""Prefix of the name of a window axis with a kernel of size 1, followed by its number from the right."""


@cache
def parse(notation: str) -> tuple[tuple[Pattern, ...], Pattern]:
    """Parse a notation such as `n (g i) *, (g o) i *, (g o) -> n (g o) *` into operands and result.

    Raises:
        ValueError: the notation is malformed, or the result has an axis that no operand has.
    """
    left, arrow, right = notation.partition("->")
    if not arrow:
        raise ValueError(f"no '->' in {notation!r}")
    operands, result = tuple(_pattern(part) for part in left.split(",")), _pattern(right)
    known = {name for pattern in operands for name in _names(pattern)}
    unknown = [name for name in _names(result) if name not in known and name != "*"]
    if unknown:
        raise ValueError(f"no operand has the axis {unknown[0]!r} of the result in {notation!r}")
    return operands, result


def _pattern(text: str) -> Pattern:
    items: list[Item] = []
    words = text.replace("(", " ( ").replace(")", " ) ").split()
    while words:
        word = words.pop(0)
        if word == "(":
            a, b, closing = words.pop(0), words.pop(0), words.pop(0)
            if closing != ")":
                raise ValueError(f"a product has two names: {text!r}")
            items.append((a, b))
        else:
            items.append(word)
    return tuple(items)


def _names(pattern: Pattern) -> list[str]:
    return [name for item in pattern for name in ((item,) if isinstance(item, str) else item)]


def spread(pattern: Pattern, rank: int) -> list[Item]:
    """Return one item for each axis: `*` is repeated, and `...` is replaced by names of the leading axes."""
    if "*" not in pattern and "..." not in pattern:
        return list(pattern)
    extra = rank - (len(pattern) - 1)
    out: list[Item] = []
    for item in pattern:
        if item == "*":
            out.extend(["*"] * extra)
        elif item == "...":
            out.extend(f"...{extra - i}" for i in range(extra))
        else:
            out.append(item)
    return out


def _passes(op: Op) -> list[bool]:
    """Return for each window axis of a convolution whether it has kernel size 1, stride 1 and no padding."""
    sizes = op.args["weight"].shape[2:]
    padding = op.args["padding"]
    pads = [0] * len(sizes) if isinstance(padding, str) else padding  # for kernel size 1 "same" is no padding
    more = op.args.get("output_padding", [0] * len(sizes))
    return [some == (1, 1, 0, 0) for some in zip(sizes, op.args["stride"], pads, more, strict=True)]


def _passing(item: Item) -> bool:
    return isinstance(item, str) and item.startswith(PASSING)


class Contraction(SameSizes):
    """A sum of products in einops-like notation, e.g. `... i, o i, o -> ... o` for F.linear.

    Args:
        notation: the axes of each operand and of the result; axes that the result lacks are summed over.
        operands: names of the arguments, in the order of the notation.
        bias: name of the operand that is added rather than multiplied, if any.
        weight: name of the operand that creates the channels of the result.
    """

    by_index = True

    def __init__(self, notation: str, *operands: str, bias: str = "", weight: str = "") -> None:
        self.operands, self.result = parse(notation)
        self.arguments = operands
        self.bias = bias
        self.weight = weight

    def _bound(self, op: Op) -> tuple[list[tuple[str, Value, list[Item]]], list[Item]]:
        """Return each operand with one item for each of its axes, and the items of the result."""
        first, out = op.args[self.arguments[0]], op.outputs[0]
        weight = op.args["weight"]
        lone = "*" in self.result and len(first.shape) < len(weight.shape)  # an unbatched convolution
        vector = len(weight.shape) == 1  # F.linear with a vector as weight: the result has no channel axis
        operands = []
        for name, pattern in zip(self.arguments, self.operands, strict=True):
            value = op.args[name]
            if value is not None:
                some = pattern[(lone and name == self.arguments[0]) or (vector and name != self.arguments[0]) :]
                operands.append((name, value, spread(some, len(value.shape))))
        result = spread(self.result[lone : len(self.result) - vector], len(out.shape))
        if "*" in result:
            for k, passes in enumerate(_passes(op), -len(weight.shape) + 2):
                if passes:  # the axis of the weight keeps its one unit
                    operands[0][2][k] = result[k] = f"{PASSING}{-k}"
        return operands, result

    def _parts(
        self, d: AxisContext | StateContext, op: Op, argument: str, axis: Axis, size: int, item: tuple[str, str]
    ) -> list[tuple[str, Axis]]:
        groups = op.args["groups"]
        if groups == 1:
            return [(item[1], axis)]
        return list(zip(item, d.algebra.split(axis, (groups, size // groups), (id(op), argument)), strict=True))

    def dims(self, op: Op, d: AxisContext) -> None:
        """Axes of one name are the same; axes that the result lacks are summed over; window axes may not grow."""
        env: dict[str, Axis] = {}
        bound, result = self._bound(op)
        for argument, value, row in bound:
            for axis, size, item in zip(d.of(value), value.shape, row, strict=True):
                if item == "*":
                    d.freeze(axis, Kind.WINDOW, f"a window of {op.name} runs over it")
                    continue
                parts = [(item, axis)] if isinstance(item, str) else self._parts(d, op, argument, axis, size, item)
                for name, part in parts:
                    known = env.get(name)
                    env[name] = part if known is None else d.unify(known, part)
        shape = op.outputs[0].shape
        out: list[Axis] = []
        for size, item in zip(shape, result, strict=True):
            if item == "*" or (_passing(item) and d.algebra.reason(env[str(item)]) is not None):
                out.append(Fixed(size))
            elif isinstance(item, str):
                out.append(env[item])
            else:
                out.append(product([env[name] for name in item if name in env]))
        d.set(op.outputs[0], out)
        kept = set(_names(tuple(result)))
        for name, axis in env.items():
            if name not in kept:
                d.contract(op, axis)
        at = next((i for i, item in enumerate(result) if item in (("g", "o"), "o")), None)
        if self.weight and at is not None:
            d.produce(op, out[at], op.args[self.weight])

    def states(self, op: Op, s: StateContext) -> None:
        """States of axes of one name are multiplied; sums over new units must vanish."""
        env: dict[str, list[list[State]]] = {}
        bias: dict[str, list[State]] = {}
        exprs: dict[str, Axis] = {}
        bound, result = self._bound(op)
        for argument, value, row in bound:
            for axis, size, item, states in zip(s.axes(value), value.shape, row, s.of(value), strict=True):
                if item == "*":
                    continue
                parts = [(item, axis)] if isinstance(item, str) else self._parts(s, op, argument, axis, size, item)
                for (name, part), some in zip(parts, regroup(s, op, states, [p for _, p in parts]), strict=True):
                    exprs[name] = part
                    if argument == self.bias:
                        bias[name] = some
                    else:
                        env.setdefault(name, []).append(some)
        for name, rows in env.items():
            widest = max(map(len, rows))
            env[name] = [s.broadcast_states(row, widest) for row in rows]
            if name in bias:
                bias[name] = s.broadcast_states(bias[name], widest)
        product_of = {name: [s.mul(op, leaf) for leaf in zip(*rows, strict=True)] for name, rows in env.items()}
        kept = set(_names(tuple(result)))
        if op.args.get(self.bias) is not None:  # along axes that the bias lacks it is the same for all units
            for name in [n for n in product_of if n in kept]:
                summand = bias.get(name, [s.same] * len(product_of[name]))
                product_of[name] = [s.add(op, pair) for pair in zip(product_of[name], summand, strict=True)]
        out: AxisStates = []
        for item in result:
            names = [n for n in ((item,) if isinstance(item, str) else item) if n in product_of]
            out.append([state for name in names for state in product_of[name]])
        s.set(op.outputs[0], out)
        for name, rows in env.items():
            if name not in kept:
                for leaf in zip(*rows, strict=True):
                    s.contract(op, leaf)

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the number of groups, which is the size of an axis."""
        groups = op.args.get("groups", 1)
        if groups == 1:
            return {}
        weight = op.args["weight"]
        return {
            "groups": z.size(
                z.algebra.split(z.axes(weight)[0], (groups, weight.shape[0] // groups), (id(op), "weight"))[0]
            )
        }


CONVOLUTION = "n (g i) *, (g o) i *, (g o) -> n (g o) *"
register(
    Contraction(CONVOLUTION, "input", "weight", "bias", bias="bias", weight="weight"),
    *("conv1d", "conv2d", "conv3d"),
)
register(
    Contraction("n (g i) *, (g i) o *, (g o) -> n (g o) *", "input", "weight", "bias", bias="bias", weight="weight"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
register(Contraction("... i, o i, o -> ... o", "input", "weight", "bias", bias="bias", weight="weight"), "linear")
register(
    Contraction("... i, ... j, o i j, o -> ... o", "input1", "input2", "weight", "bias", bias="bias", weight="weight"),
    "bilinear",
)
