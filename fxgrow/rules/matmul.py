"""Matrix products (matmul, mm, bmm, addmm) and einsum."""

from __future__ import annotations

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed, product
from ..errors import Kind
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, broadcast, register


class Matmul(SameSizes):
    """matmul, bmm, mm, mv: matrix products with broadcast batch axes, and with vectors as in torch.matmul."""

    by_index = True

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def dims(self, op: Op, d: AxisContext) -> None:
        """... i k, ... k j -> ... i j, where k is summed over."""
        a, b = op.args[self.left], op.args[self.right]
        x, y = d.of(a), d.of(b)
        inner = d.unify(x[-1], y[-2] if len(y) > 1 else y[-1])
        d.contract(op, inner)
        out = _batch(d, a, b, x, y) + (x[-2:-1] if len(x) > 1 else []) + (y[-1:] if len(y) > 1 else [])
        d.set(op.outputs[0], out)
        if len(y) > 1 and not isinstance(y[-1], Fixed):
            d.produce(op, y[-1], b)

    def states(self, op: Op, s: StateContext) -> None:
        """New units must vanish in the sum; batch axes have the state of a product."""
        a, b = op.args[self.left], op.args[self.right]
        x, y = s.of(a), s.of(b)
        for pair in zip(x[-1], y[-2] if len(y) > 1 else y[-1], strict=True):
            s.contract(op, pair)
        batch: AxisStates = []
        rank = max(len(x), len(y)) - 2
        for k in range(rank, 0, -1):
            rows = [m[-2 - k] for m, v in ((x, a), (y, b)) if len(m) >= 2 + k and m[-2 - k]]
            batch.append([s.mul(op, leaf) for leaf in zip(*rows, strict=True)] if rows else [])
        s.set(op.outputs[0], batch + (x[-2:-1] if len(x) > 1 else []) + (y[-1:] if len(y) > 1 else []))


def _batch(d: AxisContext, a: Value, b: Value, x: list[Axis], y: list[Axis]) -> list[Axis]:
    out: list[Axis] = []
    for k in range(max(len(x), len(y)) - 2, 0, -1):
        sides = [(axes[-2 - k], v.shape[-2 - k]) for axes, v in ((x, a), (y, b)) if len(axes) >= 2 + k]
        out.append(broadcast(d, sides))
    return out


class Addmm(SameSizes):
    """addmm and baddbmm: a matrix product plus a broadcast bias."""

    by_index = True

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def dims(self, op: Op, d: AxisContext) -> None:
        """The bias shares its axes with the product, as in an addition."""
        Matmul(self.left, self.right).dims(op, d)
        out, bias = d.of(op.outputs[0]), op.args["self"]
        for k, (axis, n) in enumerate(zip(reversed(d.of(bias)), reversed(bias.shape), strict=True), 1):
            out[-k] = broadcast(d, [(out[-k], op.outputs[0].shape[-k]), (axis, n)])
        d.set(op.outputs[0], out)

    def states(self, op: Op, s: StateContext) -> None:
        """The states of the product, to which those of the bias are added."""
        Matmul(self.left, self.right).states(op, s)
        out, bias = s.of(op.outputs[0]), s.of(op.args["self"])
        for k in range(1, len(out) + 1):
            rows = bias[-k] if k <= len(bias) and bias[-k] else [s.same] * len(out[-k])
            out[-k] = [s.add(op, pair) for pair in zip(out[-k], rows, strict=True)]
        s.set(op.outputs[0], out)


class Einsum(SameSizes):
    """einsum: sums of products as given by the equation."""

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

    def dims(self, op: Op, d: AxisContext) -> None:
        """Equal letters are the same axis; an axis whose letter the result lacks is summed over."""
        rows, result = self._patterns(op)
        sides: dict[str, list[tuple[Axis, int]]] = {}
        for value, row in rows:
            for axis, n, letter in zip(d.of(value), value.shape, row, strict=True):
                sides.setdefault(letter, []).append((axis, n))
            for letter in dict.fromkeys(c for c in row if row.count(c) > 1):
                for axis, _ in sides[letter]:
                    d.freeze(axis, Kind.UNKNOWN_OP, "einsum takes a diagonal over it")
        env = {letter: broadcast(d, some) for letter, some in sides.items()}
        d.set(op.outputs[0], [env[c] for c in result])
        for letter in [c for c in env if c not in result]:
            d.contract(op, env[letter])
        for value, row in rows:
            new = [env[c] for c in result if c in row and len(sides[c]) == 1 and not isinstance(env[c], Fixed)]
            if new:
                d.produce(op, product(new), value)

    def states(self, op: Op, s: StateContext) -> None:
        """Each axis has the state of the product of all operands; new units must vanish in every sum."""
        rows, result = self._patterns(op)
        env: dict[str, list[list[State]]] = {}
        for value, row in rows:
            for states, letter in zip(s.of(value), row, strict=True):
                if states:
                    env.setdefault(letter, []).append(states)
        out = {c: [s.mul(op, leaf) for leaf in zip(*some, strict=True)] for c, some in env.items()}
        s.set(op.outputs[0], [out.get(c, []) for c in result])
        for letter in [c for c in env if c not in result]:
            for leaf in zip(*env[letter], strict=True):
                s.contract(op, leaf)


def _letters(text: str, rank: int) -> list[str]:
    if "..." not in text:
        return list(text)
    before, after = text.split("...")
    extra = rank - len(before) - len(after)
    return [*before, *(f"...{extra - i}" for i in range(extra)), *after]


register(Matmul("self", "other"), "matmul")
register(Matmul("self", "mat2"), "bmm", "mm")
register(Matmul("self", "vec"), "mv")
register(Addmm("mat1", "mat2"), "addmm")
register(Addmm("batch1", "batch2"), "baddbmm")
register(Einsum(), "einsum")
