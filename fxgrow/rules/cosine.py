"""The rule of cosine_similarity."""

from __future__ import annotations

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed
from .base import AxisContext, AxisStates, SameSizes, State, StateContext, broadcast, normal, register
from .norm import mixed


class Cosine(SameSizes):
    """cosine_similarity: a sum of products along an axis, divided by both norms, each of them at least epsilon."""

    by_index = True

    def _operands(self, op: Op) -> tuple[list[Value], int]:
        values = [op.args["x1"], op.args["x2"]]
        return values, max(len(x.shape) for x in values)

    def dims(self, op: Op, d: AxisContext) -> None:
        """Operands share their axes; the result lacks the one that is summed over."""
        values, rank = self._operands(op)
        axes: list[Axis] = []
        for k in range(rank, 0, -1):
            sides = [(d.of(x)[-k], x.shape[-k]) for x in values if len(x.shape) >= k]
            free = [side for side in sides if d.algebra.resolve(side[0]) != Fixed(1)]
            axes.append(broadcast(d, free or sides))
        del axes[normal(op.args["dim"], rank)]
        d.set(op.outputs[0], axes)

    def states(self, op: Op, s: StateContext) -> None:
        """Along the summed axis both operands must be copied, or both split; other units are normalised."""
        values, rank = self._operands(op)
        rows = [s.of(x) for x in values]
        at = normal(op.args["dim"], rank)
        out: AxisStates = []
        for n, k in enumerate(range(rank, 0, -1)):
            sides = [row[-k] if len(row) >= k else [] for row in rows]
            width = max(map(len, sides))
            leaves = list(zip(*(side or [s.same] * width for side in sides), strict=True))
            if n != at:
                out.append([s.mul(op, [self._unit(op, s, x) for x in leaf]) for leaf in leaves])
                continue
            along = [s.axes(x)[-k] for x in values if len(x.shape) >= k and s.count(s.axes(x)[-k])]
            for leaf in leaves:
                state = s.merge(op, leaf)
                s.mix(op, state, mixed(op, s, along[:1], epsilon=float(op.args["eps"]), kind="cosine"))
        s.set(op.outputs[0], out)

    def _unit(self, op: Op, s: StateContext, state: State) -> State:
        state = s.require(op, state, even=False, why="it is divided by its own length")
        return s.map_units(op, [state], odd=True, zero=True)


register(Cosine(), "cosine_similarity")
