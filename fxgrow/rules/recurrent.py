"""Recurrent layers and cells: RNN, GRU and LSTM, over a sequence or for one step.

New hidden units take part in the recurrence, so their states must be the same at every step. They are computed by the
equations of the cell (`recurrent_cells`), on states instead of numbers. The rows of the weights are (g h), for g gates
and h hidden units: all gates of a unit have one state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..capture.program.program import Op, Value
from ..dims.axis import Axis, Fixed, product, total
from ..errors import GrowthRefused, Kind, Refusal
from .base import AxisContext, SameSizes, SizeContext, State, StateContext, register
from .recurrent_cells import Equations, elman, gru, lstm

Row = list[State]


@dataclass(frozen=True, slots=True)
class Cell:
    """The parameters of one layer in one direction."""

    w_ih: Value
    w_hh: Value
    biases: tuple[Value, ...]
    """(b_ih, b_hh), or () without biases."""
    w_hr: Value | None = None
    """The projection of the hidden state (r h), of an LSTM with proj_size."""


class Recurrent(SameSizes):
    """Base class of the rules of recurrent layers and cells: the axes and states of one cell."""

    def __init__(self, gates: int, equations: Equations) -> None:
        self.gates, self.equations = gates, equations

    def _initial(self, op: Op) -> list[Value]:
        """Return the initial hidden state, and for an LSTM the initial cell state."""
        hx = op.args["hx"]
        return list(hx) if isinstance(hx, list | tuple) else [hx]

    def _tie(self, op: Op, d: AxisContext, cell: Cell, into: Axis, hidden: Axis, memory: Axis) -> None:
        """Unify the axes of one cell: its weights sum over `into` (the input) and `hidden`, and create `memory`."""
        d.contract(op, d.unify(into, d.of(cell.w_ih)[1]))
        d.contract(op, d.unify(hidden, d.of(cell.w_hh)[1]))
        rows = product([Fixed(self.gates), memory])
        for value in (cell.w_ih, cell.w_hh, *cell.biases):
            d.unify(d.of(value)[0], rows)
        d.produce(op, memory, cell.w_ih)
        if cell.w_hr is not None:
            projected, inner = d.of(cell.w_hr)
            d.contract(op, d.unify(memory, inner))
            d.produce(op, d.unify(hidden, projected), cell.w_hr)

    def _step(
        self, op: Op, s: StateContext, cell: Cell, into: Row, hidden: Row, memory: Row, *, loop: bool
    ) -> tuple[Row, Row]:
        """Return the states of the hidden state and of the cell state after one step; in a loop the next step sums over
        the hidden state."""
        width = s.count(s.axes(cell.w_hr or cell.w_hh)[1])
        sides: list[Row] = []
        for weight, bias in ((cell.w_ih, cell.biases[:1]), (cell.w_hh, cell.biases[1:])):
            products = [s.mul(op, [state]) for state in s.broadcast_states(s.of(weight)[0], width)]
            summands = [products, *(s.broadcast_states(s.of(b)[0], width) for b in bias)]
            sides.append([s.add(op, leaf) for leaf in zip(*summands, strict=True)])
        u, v = sides
        steps = [self.equations(s, op, *leaf) for leaf in zip(u, v, s.broadcast_states(memory, width), strict=True)]
        out, kept = [h for h, _ in steps], [m for _, m in steps]
        if cell.w_hr is not None:
            projected, inner = s.of(cell.w_hr)
            _vanish(op, s, out, inner)
            out = [s.mul(op, [state]) for state in projected]
        _vanish(op, s, into, s.of(cell.w_ih)[1])
        before = s.broadcast_states(hidden, len(out))
        if loop:
            before = [s.add(op, pair) for pair in zip(before, out, strict=True)]
        _vanish(op, s, before, s.of(cell.w_hh)[1])
        return out, kept

    def _samples(self, op: Op, s: StateContext, rows: list[Row], *, biases: bool, layers: int = 0) -> tuple[Row, Row]:
        """Return the states of the hidden state and of the cell state along the batch axis.

        Each sample is a function of its own input and initial state: weights are linear, and biases are the same for
        all samples. `layers`: number of layers of a sequence; 0 for a single step.
        """
        made: list[tuple[State, State]] = []
        same = [s.same] * biases
        for x, *initial in zip(*rows, strict=True):
            ends: list[tuple[State, State]] = []
            for _ in range(max(layers, 1)):
                u = s.add(op, [x, *same])
                x, memory = self.equations(s, op, u, s.add(op, [initial[0], *same]), initial[-1])
                if layers:
                    v, before = s.add(op, [initial[0], x, *same]), s.add(op, [initial[-1], memory])
                    x, memory = self.equations(s, op, u, v, before)
                ends.append((x, memory))
            made.append((s.add(op, [h for h, _ in ends]), s.add(op, [m for _, m in ends])))
        return [h for h, _ in made], [m for _, m in made]


def _vanish(op: Op, s: StateContext, read: Row, columns: Row) -> None:
    """Require that new units of `read` vanish in the sum with the columns of a weight."""
    width = max(len(read), len(columns))
    for pair in zip(s.broadcast_states(read, width), s.broadcast_states(columns, width), strict=True):
        s.contract(op, pair)


class OneStep(Recurrent):
    """rnn_tanh_cell, rnn_relu_cell, gru_cell, lstm_cell: one step, n i, n h -> n h."""

    def _cell(self, op: Op) -> Cell:
        biases = (op.args["b_ih"], op.args["b_hh"])
        return Cell(op.args["w_ih"], op.args["w_hh"], () if biases[0] is None else biases)

    def dims(self, op: Op, d: AxisContext) -> None:
        """The new hidden state has the axes of the old one, which shares the batch axis with the input."""
        batch, into = d.of(op.args["input"])
        axes = [d.of(value) for value in self._initial(op)]
        for row in axes:
            d.unify(batch, row[0])
            d.unify(axes[0][1], row[1])
        self._tie(op, d, self._cell(op), into, axes[0][1], axes[-1][1])
        for out in op.outputs:
            d.set(out, [batch, axes[0][1]])

    def states(self, op: Op, s: StateContext) -> None:
        """The states after one step of the equations."""
        cell = self._cell(op)
        batch, into = s.of(op.args["input"])
        before = [s.of(value) for value in self._initial(op)]
        hidden, memory = self._step(op, s, cell, into, before[0][1], before[-1][1], loop=False)
        samples = self._samples(op, s, [batch, *(m[0] for m in before)], biases=bool(cell.biases))
        for out, row, rows in zip(op.outputs, (hidden, memory), samples, strict=False):
            s.set(out, [rows, row])


class Sequence(Recurrent):
    """rnn_tanh, rnn_relu, gru, lstm: layers in one or two directions over a sequence of any length.

    All layers and directions have the same number of hidden units, because the hidden state is one tensor (l n h). The
    output of two directions is h + h, the input of the next layer. In an LSTM with projections (r h) the hidden state
    has r units.
    """

    def _cells(self, op: Op) -> list[list[Cell]]:
        """Return the cells of each layer, forward direction first."""
        params, directions = list(op.args["params"]), 1 + op.args["bidirectional"]
        initial = self._initial(op)
        projected = initial[0].shape[-1] != initial[-1].shape[-1]  # as torch decides it
        biases = 2 * op.args["has_biases"]
        each = 2 + biases + projected
        cells = []
        for start in range(0, len(params), each):
            w_ih, w_hh, *rest = params[start : start + each]
            cells.append(Cell(w_ih, w_hh, tuple(rest[:biases]), rest[-1] if projected else None))
        return [cells[k : k + directions] for k in range(0, len(cells), directions)]

    def dims(self, op: Op, d: AxisContext) -> None:
        """The batch and hidden axes may grow; the time axis and the axis of layers may not."""
        if "batch_sizes" in op.args:
            for value in op.inputs():
                for axis in d.of(value):
                    d.freeze(axis, Kind.UNKNOWN_OP, f"{op.name} over packed sequences has no rule")
            for out in op.outputs:
                d.set(out, [Fixed(n) for n in out.shape])
            return
        *order, into = d.of(op.args["input"])
        batch, time = order if op.args["batch_first"] else order[::-1]
        d.freeze(time, Kind.STATISTIC, "a recurrence runs along it")
        axes = [d.of(value) for value in self._initial(op)]
        layers, _, hidden = axes[0]
        memory = axes[-1][2]
        for row in axes:
            d.freeze(row[0], Kind.INDEX, "its units are layers and directions")
            d.unify(batch, row[1])
        for directions in self._cells(op):
            for cell in directions:
                self._tie(op, d, cell, into, hidden, memory)
                if cell.w_hr is None:
                    d.unify(hidden, memory)
            into = total([d.algebra.resolve(hidden)] * len(directions))
        d.set(op.outputs[0], [*order, into])
        for out, axis in zip(op.outputs[1:], (hidden, memory), strict=False):
            d.set(out, [layers, batch, axis])

    def states(self, op: Op, s: StateContext) -> None:
        """The states after a step of the equations, which must be valid as the input of the next step."""
        x, cells = s.of(op.args["input"]), self._cells(op)
        into, batch = x[2], x[0 if op.args["batch_first"] else 1]
        rows = [s.of(value) for value in self._initial(op)]
        hiddens: list[Row] = []
        memories: list[Row] = []
        for row in cells:
            found = [self._step(op, s, cell, into, rows[0][2], rows[-1][2], loop=True) for cell in row]
            into = [state for hidden, _ in found for state in hidden]
            if op.draws[0] and row is not cells[-1]:
                into = [s.drawn(op, state, DROPS) for state in into]
            hiddens.extend(hidden for hidden, _ in found)
            memories.extend(memory for _, memory in found)
        ends = [batch, *(m[1] for m in rows)]
        samples = self._samples(op, s, ends, biases=op.args["has_biases"], layers=len(cells))
        if op.draws[0]:
            hidden, memory = ([s.drawn(op, state, DROPS) for state in row] for row in samples)
            samples = hidden, memory
        if op.draws == (False, True) and (into or batch):
            s.only_eval(op, DROPS)
        s.set(op.outputs[0], [samples[0], [], into] if op.args["batch_first"] else [[], samples[0], into])
        for out, some, row in zip(op.outputs[1:], (hiddens, memories), samples, strict=False):
            s.set(out, [[], row, [s.add(op, leaf) for leaf in zip(*some, strict=True)]])

    def resized(self, op: Op, z: SizeContext) -> Mapping[str, Any]:
        """Return no arguments; but check sizes, from which torch decides whether the hidden state is projected.

        Raises:
            GrowthRefused: the projected state would be as large as the cell state.
        """
        hidden, *cell = (z.shape(value)[-1] for value in self._initial(op))
        if "batch_sizes" not in op.args and self._cells(op)[0][0].w_hr is not None and hidden >= cell[0]:
            raise GrowthRefused(
                Refusal(
                    Kind.INEXPRESSIBLE,
                    f"an LSTM with a cell state of {cell[0]} units cannot project it to {hidden} units, only to fewer",
                    where=op.node,
                    chain=(op.node,),
                    hint="widen its cell state (weight_ih_l0) first, or the projection by less",
                )
            )
        return {}


DROPS = "dropout between layers draws a mask entry for every unit"
register(OneStep(1, elman(odd=True)), "rnn_tanh_cell")
register(OneStep(1, elman(odd=False)), "rnn_relu_cell")
register(OneStep(3, gru), "gru_cell")
register(OneStep(4, lstm), "lstm_cell")
register(Sequence(1, elman(odd=True)), "rnn_tanh")
register(Sequence(1, elman(odd=False)), "rnn_relu")
register(Sequence(3, gru), "gru")
register(Sequence(4, lstm), "lstm")
