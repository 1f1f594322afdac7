"""The rule of scaled_dot_product_attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, atoms, product
from ..errors import Kind
from .base import AxisContext, AxisStates, SizeContext, State, StateContext, broadcast, register


class Attention:
    """scaled_dot_product_attention: softmax(q k^T * scale + mask) v.

    Heads are a batch axis; the head dimension of q and k is summed over, that of v is in the result. With `enable_gqa`
    the heads of q are (kv r): r of them share a head of k and v.
    """

    by_index = False

    def _grouped(self, op: Op) -> bool:
        q, k = op.args["query"], op.args["key"]
        return bool(op.args.get("enable_gqa")) and len(q.shape) > 2 and q.shape[-3] != k.shape[-3]

    def _heads(self, d: AxisContext | StateContext, op: Op, axis: Axis) -> list[Axis]:
        heads = op.args["key"].shape[-3]
        return d.algebra.split(axis, (heads, op.args["query"].shape[-3] // heads), (id(op), "heads"))

    def _shared(self, op: Op, s: StateContext) -> list[bool]:
        """Return for each occurrence in the heads of q whether it occurs in those of k and v too."""
        axis = s.axes(op.args["query"])[-3]
        group, _ = (set(atoms(part)) for part in self._heads(s, op, axis))
        return [atom in group for atom in atoms(s.algebra.resolve(axis)) if s.count(atom)]

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share the head dimension of q and k, the tokens of k and v, and heads; tokens of k may not grow."""
        q, k, v = (op.args[name] for name in ("query", "key", "value"))
        x, y, z = d.of(q), d.of(k), d.of(v)
        d.contract(op, d.unify(x[-1], y[-1]))
        tokens = d.unify(y[-2], z[-2])
        d.freeze(tokens, Kind.SOFTMAX, "attention takes a softmax over it")
        if op.args.get("is_causal"):
            d.freeze(x[-2], Kind.INDEX, "a causal mask depends on the positions of its units")
        sides: list[tuple[list[Axis], Value]] = [(x, q), (y, k), (z, v)]
        grouped = self._grouped(op)
        if grouped:
            group, rest = self._heads(d, op, x[-3])
            d.unify(d.unify(group, y[-3]), z[-3])
            x[-3] = product([group, rest])
        mask = op.args.get("attn_mask")
        if mask is not None:
            d.freeze(d.of(mask)[-1], Kind.SOFTMAX, "attention takes a softmax over it")
            if len(mask.shape) > 1:
                x[-2] = broadcast(d, [(x[-2], q.shape[-2]), (d.of(mask)[-2], mask.shape[-2])])
            sides.append((d.of(mask), mask))
        out: list[Axis] = []
        for at in range(len(op.outputs[0].shape), 2, -1):
            if grouped and at == 3:
                heads = [(x[-3], q.shape[-3]), *((a[-3], m.shape[-3]) for a, m in sides[3:] if len(a) > 2)]
                out.append(broadcast(d, heads))
            else:
                out.append(broadcast(d, [(a[-at], m.shape[-at]) for a, m in sides if len(a) >= at]))
        d.set(op.outputs[0], [*out, x[-2], z[-1]])

    def states(self, op: Op, s: StateContext) -> None:
        """The sum over new units of the head dimension vanishes; a new head is a function of its own q, k and v."""
        q, k, v, mask = op.args["query"], op.args["key"], op.args["value"], op.args.get("attn_mask")
        x, y, z = s.of(q), s.of(k), s.of(v)
        for pair in zip(x[-1], y[-1], strict=True):
            s.contract(op, pair)
        if op.draws == (False, True) and any(map(any, (x, z))):
            s.only_eval(op, DROPS)
        out: AxisStates = []
        for at in range(len(op.outputs[0].shape), 2, -1):
            rows = [m[-at] if len(m) >= at else [] for m in (x, y, z, s.of(mask) if mask is not None else [])]
            if self._grouped(op) and at == 3:
                shared = self._shared(op, s)
                rows[1:3] = ([next(row) if x else s.same for x in shared] for row in map(iter, rows[1:3]))
            out.append(self._heads_out(op, s, rows))
        masks = s.of(mask)[-2] if mask is not None and len(mask.shape) > 1 else []
        width = max(len(x[-2]), len(masks))
        rows = [row if len(row) == width else [s.same] * width for row in (x[-2], masks)]
        tokens = [s.map_units(op, leaf, odd=False, zero=False) for leaf in zip(*rows, strict=True)]
        if op.draws[0]:  # the dropout mask is the same along the head dimension
            out, tokens = [[s.drawn(op, y, DROPS) for y in row] for row in out], [s.drawn(op, y, DROPS) for y in tokens]
        s.set(op.outputs[0], [*out, tokens, z[-1]])

    def _heads_out(self, op: Op, s: StateContext, rows: list[list[State]]) -> list[State]:
        width = max(map(len, rows))
        queries, keys, values, masks = (row if len(row) == width else [s.same] * width for row in rows)
        out = []
        for a, b, c, m in zip(queries, keys, values, masks, strict=True):
            scores = s.add(op, [s.mul(op, [a, b]), m]) if op.args.get("attn_mask") is not None else s.mul(op, [a, b])
            out.append(s.mul(op, [s.map_units(op, [scores], odd=False, zero=False), c]))
        return out

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return the old default scale if the head dimension grows, because the default depends on it."""
        old, new = op.args["query"].shape[-1], z.shape(op.args["query"])[-1]
        return {"scale": 1 / math.sqrt(old)} if op.args.get("scale") is None and new != old else {}


DROPS = "attention applies dropout to its weights"
register(Attention(), "scaled_dot_product_attention")
