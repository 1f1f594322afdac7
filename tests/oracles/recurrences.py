"""Labels through recurrent layers and cells: what meets in their equations, step by step, on unit labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fxgrow.capture.program.program import Op, Value

from .labels import Labelling, Planes, narrow, place, split

OPERATORS = """rnn_tanh rnn_relu gru lstm rnn_tanh_cell rnn_relu_cell gru_cell lstm_cell"""
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def recur(orbits: Labelling, op: Op) -> list[Planes]:
    """Planes of the results of a recurrent layer, or of one step of a cell."""
    name = op.name.removeprefix("aten::")
    walk = _Recurrence(orbits, _GATES[name.split("_")[0]])
    hx = op.args["hx"]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    return walk.step(op, states) if name.endswith("_cell") else walk.layers(op, states)


class _Recurrence:
    def __init__(self, orbits: Labelling, gates: int) -> None:
        self.orbits, self.gates = orbits, gates

    def step(self, op: Op, states: list[Value]) -> list[Planes]:
        """n i, n h -> n h."""
        weights = [op.args[k] for k in ("w_ih", "w_hh", "b_ih", "b_hh") if op.args[k] is not None]
        initial = [self.orbits.of(v) for v in states]
        return list(self._cell(["n"], self.orbits.of(op.args["input"]), initial, weights, None))

    def layers(self, op: Op, states: list[Value]) -> list[Planes]:
        """t n i, l n h -> t n (d h), l n h."""
        args, params = op.args, list(op.args["params"])
        first, directions = args["batch_first"], 1 + args["bidirectional"]
        projected = states[0].shape[-1] != states[-1].shape[-1]
        each = 2 + 2 * args["has_biases"] + projected
        x = _swapped(self.orbits.of(args["input"])) if first else self.orbits.of(args["input"])
        ends: tuple[list[Planes], list[Planes]] = ([], [])
        for layer in range(args["num_layers"]):
            found = []
            for row in range(layer * directions, (layer + 1) * directions):
                initial = [[narrow(p, 0, row, 1) for p in self.orbits.of(v)] for v in states]
                weights = params[row * each : (row + 1) * each]
                hidden, memory = self._cell(["t", "n"], x, initial, weights, weights.pop() if projected else None)
                found.append(hidden)
                for end, planes in zip(ends, (hidden, memory), strict=True):
                    end.append([self.orbits.labels.project(p, [1, 2]) for p in planes])
            x = self._beside(found, states[0].shape[-1])
        out = _swapped(x) if first else x
        stacked = [self._tidy(self.orbits.added(3, *end)) for end in ends]
        return [out, *stacked[: len(states)]]

    def _cell(
        self, lead: list[str], x: Planes, states: list[Planes], weights: Sequence[Value], projection: Value | None
    ) -> tuple[Planes, Planes]:
        """One cell at all steps at once: the labels of its hidden state and of its memory."""
        contract, of, rank = self.orbits.contract, self.orbits.of, len(lead) + 1
        w_ih, w_hh = ([split(p, 0, self.gates) for p in of(w)] for w in weights[:2])
        biases = [[place(split(p, 0, self.gates), [rank - 1, rank], rank + 1) for p in of(b)] for b in weights[2:]]
        read = [*lead, "g", "o"]
        u = contract((x, [*lead, "i"]), (w_ih, ["g", "o", "i"]), read)
        v = contract((states[0], [*lead, "k"]), (w_hh, ["g", "o", "k"]), read)
        gates = self._tidy(self.orbits.added(rank + 1, u, v, *biases))
        sides = [[narrow(p, rank - 1, k, 1).squeeze(rank - 1) for p in gates] for k in range(self.gates)]
        memory = self._tidy(self.orbits.added(rank, *sides, states[-1]))
        hidden = memory
        if projection is not None:
            made = contract((memory, [*lead, "m"]), (of(projection), ["o", "m"]), [*lead, "o"])
            hidden = self._tidy(self.orbits.added(rank, made, states[0]))
        contract((hidden, [*lead, "k"]), (w_hh, ["g", "o", "k"]), read)  # it is read again by the next step
        return hidden, memory

    def _beside(self, directions: list[Planes], size: int) -> Planes:
        """Two directions, one after the other along the last axis."""
        if len(directions) == 1:
            return directions[0]
        own: Planes = []
        for k, planes in enumerate(directions):
            for p in planes:
                if p.shape[-1] > 1:
                    wide = torch.zeros((*p.shape[:-1], size * len(directions)), dtype=p.dtype)
                    wide.narrow(-1, k * size, size).copy_(p)
                    own.append(wide)
        shared = [[p for p in planes if p.shape[-1] == 1] for planes in directions]
        return self._tidy([*own, *self.orbits.added(3, *shared)])

    def _tidy(self, planes: Planes) -> Planes:
        return self.orbits.labels.tidy(planes)


def _swapped(planes: Planes) -> Planes:
    """Planes of t n ... for n t ..., and the other way round."""
    swapped: list[Tensor] = [p.transpose(0, 1) for p in planes]
    return swapped
