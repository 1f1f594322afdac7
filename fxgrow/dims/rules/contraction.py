"""Contractions: operators that sum products over an axis. Convolutions, linear maps, matrix products, einsum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ...capture.program import Op, Value
from ...errors import Kind
from ..axis import Axis, Fixed, product
from .base import Dims, Flow, Marks, SameSizes, Sizes, State, register, regroup

Item = str | tuple[str, str]
"""A named axis, a product `(g o)` of two, `*` for window axes, `...` for any leading axes."""
Pattern = tuple[Item, ...]


@cache
def parse(notation: str) -> tuple[tuple[Pattern, ...], Pattern]:
    """Read `n (g i) *, (g o) i *, (g o) -> n (g o) *`.

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
        raise ValueError(f"{unknown[0]!r} in the result of {notation!r} comes from nowhere")
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
    """One item for each axis: `*` repeats at its place, `...` names the leading axes from the right."""
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


class Contraction(SameSizes):
    """A sum over products, in einops-like notation; the last operand may be a bias that is added."""

    def __init__(self, notation: str, *operands: str, bias: str = "", weight: str = "") -> None:
        self.operands, self.result = parse(notation)
        self.arguments = operands
        self.bias = bias
        self.weight = weight

    def _bound(self, op: Op) -> tuple[list[tuple[str, Value, list[Item]]], list[Item]]:
        """Each operand with one item for each of its axes, and the items of the result."""
        first, out = op.args[self.arguments[0]], op.outputs[0]
        lone = "*" in self.result and len(first.shape) < len(op.args["weight"].shape)  # an unbatched convolution
        operands = []
        for name, pattern in zip(self.arguments, self.operands, strict=True):
            value = op.args[name]
            if value is not None:
                operands.append((name, value, spread(pattern[lone and value is first :], len(value.shape))))
        return operands, spread(self.result[lone:], len(out.shape))

    def _parts(self, d: Dims | Flow, op: Op, axis: Axis, size: int, item: tuple[str, str]) -> list[tuple[str, Axis]]:
        groups = op.args["groups"]
        if groups == 1:
            return [(item[1], axis)]
        return list(zip(item, d.algebra.split(axis, (groups, size // groups)), strict=True))

    def dims(self, op: Op, d: Dims) -> None:
        """Unite axes of one name; window axes may not grow; what the result lacks is contracted."""
        env: dict[str, Axis] = {}
        bound, result = self._bound(op)
        for _, value, row in bound:
            for axis, size, item in zip(d.of(value), value.shape, row, strict=True):
                if item == "*":
                    d.freeze(axis, Kind.WINDOW, f"a window of {op.name} runs over it")
                    continue
                parts = [(item, axis)] if isinstance(item, str) else self._parts(d, op, axis, size, item)
                for name, part in parts:
                    known = env.get(name)
                    env[name] = part if known is None else d.unify(known, part)
        shape = op.outputs[0].shape
        out: list[Axis] = []
        for size, item in zip(shape, result, strict=True):
            if item == "*":
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
        if self.weight:
            at = next(i for i, item in enumerate(result) if item in (("g", "o"), "o"))
            d.produce(op, out[at], op.args[self.weight])

    def states(self, op: Op, s: Flow) -> None:
        """Multiply the states of one name; new units must vanish in every sum over them."""
        env: dict[str, list[list[State]]] = {}
        bias: dict[str, list[State]] = {}
        exprs: dict[str, Axis] = {}
        bound, result = self._bound(op)
        for argument, value, row in bound:
            for axis, size, item, states in zip(s.axes(value), value.shape, row, s.of(value), strict=True):
                if item == "*":
                    continue
                parts = [(item, axis)] if isinstance(item, str) else self._parts(s, op, axis, size, item)
                for (name, part), some in zip(parts, regroup(s, op, states, [p for _, p in parts]), strict=True):
                    exprs[name] = part
                    if argument == self.bias:
                        bias[name] = some
                    else:
                        env.setdefault(name, []).append(some)
        product_of = {name: [s.mul(op, leaf) for leaf in zip(*rows, strict=True)] for name, rows in env.items()}
        for name, states in bias.items():
            product_of[name] = [s.add(op, pair) for pair in zip(product_of[name], states, strict=True)]
        out: Marks = []
        for item in result:
            names = [n for n in ((item,) if isinstance(item, str) else item) if n in product_of]
            out.append([state for name in names for state in product_of[name]])
        s.set(op.outputs[0], out)
        kept = set(_names(tuple(result)))
        for name, rows in env.items():
            if name not in kept:
                for leaf in zip(*rows, strict=True):
                    s.contract(op, leaf)

    def resized(self, op: Op, z: Sizes) -> Mapping[str, Any]:
        """The number of groups follows its axis."""
        groups = op.args.get("groups", 1)
        if groups == 1:
            return {}
        weight = op.args["weight"]
        return {"groups": z.size(z.algebra.split(z.axes(weight)[0], (groups, weight.shape[0] // groups))[0])}


class Matmul(SameSizes):
    """Matrix products with broadcast batch axes; vectors as torch.matmul takes them."""

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def dims(self, op: Op, d: Dims) -> None:
        """... i k, ... k j -> ... i j."""
        a, b = op.args[self.left], op.args[self.right]
        x, y = d.of(a), d.of(b)
        inner = d.unify(x[-1], y[-2] if len(y) > 1 else y[-1])
        d.contract(op, inner)
        out = _batch(d, a, b, x, y) + (x[-2:-1] if len(x) > 1 else []) + (y[-1:] if len(y) > 1 else [])
        d.set(op.outputs[0], out)
        if len(y) > 1:
            d.produce(op, y[-1], b)

    def states(self, op: Op, s: Flow) -> None:
        """As a sum of products."""
        a, b = op.args[self.left], op.args[self.right]
        x, y = s.of(a), s.of(b)
        for pair in zip(x[-1], y[-2] if len(y) > 1 else y[-1], strict=True):
            s.contract(op, pair)
        batch: Marks = []
        rank = max(len(x), len(y)) - 2
        for k in range(rank, 0, -1):
            rows = [m[-2 - k] for m, v in ((x, a), (y, b)) if len(m) >= 2 + k and m[-2 - k]]
            batch.append([s.mul(op, leaf) for leaf in zip(*rows, strict=True)] if rows else [])
        s.set(op.outputs[0], batch + (x[-2:-1] if len(x) > 1 else []) + (y[-1:] if len(y) > 1 else []))


def _batch(d: Dims, a: Value, b: Value, x: list[Axis], y: list[Axis]) -> list[Axis]:
    out: list[Axis] = []
    for k in range(max(len(x), len(y)) - 2, 0, -1):
        sides = [(axes[-2 - k], v.shape[-2 - k]) for axes, v in ((x, a), (y, b)) if len(axes) >= 2 + k]
        out.append(broadcast(d, sides))
    return out


def broadcast(d: Dims, sides: Sequence[tuple[Axis, int]]) -> Axis:
    """The axis that operands share under broadcasting; an axis of one unit that is repeated may not grow."""
    size = max(n for _, n in sides)
    out: Axis | None = None
    for axis, n in sides:
        if n != size:
            d.freeze(axis, Kind.BROADCAST, "its one unit is broadcast against a wider axis")
        else:
            out = axis if out is None else d.unify(out, axis)
    return out if out is not None else Fixed(size)


class Addmm(SameSizes):
    """addmm and baddbmm: a matrix product plus a broadcast bias."""

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def dims(self, op: Op, d: Dims) -> None:
        """The bias meets the product as in an addition."""
        Matmul(self.left, self.right).dims(op, d)
        out, bias = d.of(op.outputs[0]), op.args["self"]
        for k, (axis, n) in enumerate(zip(reversed(d.of(bias)), reversed(bias.shape), strict=True), 1):
            out[-k] = broadcast(d, [(out[-k], op.outputs[0].shape[-k]), (axis, n)])
        d.set(op.outputs[0], out)

    def states(self, op: Op, s: Flow) -> None:
        """Product, then sum."""
        Matmul(self.left, self.right).states(op, s)
        out, bias = s.of(op.outputs[0]), s.of(op.args["self"])
        for k in range(1, len(out) + 1):
            rows = bias[-k] if k <= len(bias) and bias[-k] else [s.even] * len(out[-k])
            out[-k] = [s.add(op, pair) for pair in zip(out[-k], rows, strict=True)]
        s.set(op.outputs[0], out)


class Einsum(SameSizes):
    """torch.einsum: the equation is the rule."""

    def _patterns(self, op: Op) -> tuple[list[tuple[Value, list[str]]], list[str]]:
        equation = op.args["equation"].replace(" ", "")
        left, arrow, right = equation.partition("->")
        operands = op.args["tensors"]
        rows = []
        for value, text in zip(operands, left.split(","), strict=True):
            rows.append((value, _letters(text, len(value.shape))))
        if not arrow:
            letters = "".join(left.replace(",", ""))
            right = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) - {"."} if letters.count(c) == 1))
        return rows, _letters(right, len(op.outputs[0].shape))

    def dims(self, op: Op, d: Dims) -> None:
        """Letters are axes; a letter that the result lacks is contracted."""
        rows, result = self._patterns(op)
        sides: dict[str, list[tuple[Axis, int]]] = {}
        for value, row in rows:
            for axis, n, letter in zip(d.of(value), value.shape, row, strict=True):
                sides.setdefault(letter, []).append((axis, n))
            for letter in {c for c in row if row.count(c) > 1}:
                for axis, _ in sides[letter]:
                    d.freeze(axis, Kind.UNKNOWN_OP, "einsum takes a diagonal over it")
        env = {letter: broadcast(d, some) for letter, some in sides.items()}
        d.set(op.outputs[0], [env[c] for c in result])
        for letter in env.keys() - set(result):
            d.contract(op, env[letter])
        value, row = rows[-1]
        new = [c for c in row if c in result and len(sides[c]) == 1]
        if len(new) == 1:
            d.produce(op, env[new[0]], value)

    def states(self, op: Op, s: Flow) -> None:
        """As a sum of products."""
        rows, result = self._patterns(op)
        env: dict[str, list[list[State]]] = {}
        for value, row in rows:
            for states, letter in zip(s.of(value), row, strict=True):
                if states:
                    env.setdefault(letter, []).append(states)
        out = {c: [s.mul(op, leaf) for leaf in zip(*some, strict=True)] for c, some in env.items()}
        s.set(op.outputs[0], [out.get(c, []) for c in result])
        for letter in env.keys() - set(result):
            for leaf in zip(*env[letter], strict=True):
                s.contract(op, leaf)


def _letters(text: str, rank: int) -> list[str]:
    if "..." not in text:
        return list(text)
    before, after = text.split("...")
    extra = rank - len(before) - len(after)
    return [*before, *(f"...{extra - i}" for i in range(extra)), *after]


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
register(Matmul("self", "other"), "matmul")
register(Matmul("self", "mat2"), "bmm", "mm")
register(Matmul("self", "vec"), "mv")
register(Addmm("mat1", "mat2"), "addmm")
register(Addmm("batch1", "batch2"), "baddbmm")
register(Einsum(), "einsum")

__all__ = ["Contraction", "Einsum", "Matmul", "broadcast", "parse"]
