"""Recurrent layers and cells: new hidden units are read again at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from fxgrow.errors import Kind

from .row import Row, row

WHY = (Kind.STATISTIC, Kind.INDEX)
aten = torch.ops.aten


def layers(
    name: str,
    *params: Tensor,
    biases: bool = True,
    count: int = 1,
    dropout: float = 0.0,
    both: bool = False,
    first: bool = False,
    state: tuple[Tensor, ...] | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Call a recurrent layer: input, initial states (one, or two for an lstm), then the weights of each cell."""
    x, rest = params[0], list(params[1:])
    if state is None:
        state = (rest.pop(0),) if name != "lstm" else (rest.pop(0), rest.pop(0))
    hx = state if name == "lstm" else state[0]
    found: tuple[Tensor, ...] = getattr(torch, name)(x, hx, rest, biases, count, dropout, True, both, first)
    return found


def cell(gates: int, inner: str = "4+", hidden: str = "3+") -> tuple[str, str, str, str]:
    """The weights of one cell: of inputs, of the hidden state, and two biases."""
    rows = f"{gates * int(hidden[:-1])}{hidden[-1]}"
    return f"{rows} {inner}", f"{rows} {hidden}", rows, rows


def weights(gates: int, *inner: str, hidden: str = "3+") -> tuple[str, ...]:
    """The weights of some cells without biases."""
    return tuple(text for one in inner for text in cell(gates, one, hidden)[:2])


def gatewise(x: Tensor, h: Tensor, c: Tensor, *gates: Tensor) -> Tensor | tuple[Tensor, ...]:
    """An lstm whose gates have weights of their own."""
    return layers("lstm", x, h, c, torch.cat(gates[:4]), torch.cat(gates[4:]), biases=False)


def unrolled(x: Tensor, h: Tensor, c: Tensor, *params: Tensor) -> Tensor:
    """Two steps of an lstm cell."""
    for t in range(2):
        h, c = torch.lstm_cell(x[:, t], (h, c), *params)
    return h * c


def headed(x: Tensor, h: Tensor, *params: Tensor) -> Tensor:
    """A gru whose hidden units are looked at as heads."""
    out = layers("gru", x, h, *params, biases=False)[0]
    heads: Tensor = out.unflatten(2, (2, 2))
    return heads * heads.sum(-1, keepdim=True)


def halved(x: Tensor, h: Tensor, *params: Tensor) -> Tensor:
    """A gru whose hidden units are a chunk of values and one of gates."""
    values, gates = layers("gru", x, h, *params, biases=False)[0].chunk(2, -1)
    return values * torch.sigmoid(gates)


def from_zero(x: Tensor, *params: Tensor) -> Tensor | tuple[Tensor, ...]:
    """An lstm that starts from zeros, made on the spot."""
    zeros = torch.zeros((1, x.shape[1], 3), dtype=x.dtype)
    return layers("lstm", x, *params, state=(zeros, zeros))


ROWS: list[Row] = [
    row("rnn_tanh", lambda *t: layers("rnn_tanh", *t), "2. 3+ 4+", "1. 3+ 3+", *cell(1), why=WHY),
    row(
        "rnn_tanh (two layers, no bias)",
        lambda *t: layers("rnn_tanh", *t, biases=False, count=2),
        *("3. 2+ 4+", "2. 2+ 3+", *weights(1, "4+", "3+")),
        why=WHY,
    ),
    row(
        "rnn_tanh (both directions, no bias)",
        lambda *t: layers("rnn_tanh", *t, biases=False, both=True),
        *("3. 2+ 4+", "2. 2+ 3+", *weights(1, "4+", "4+")),
        why=WHY,
    ),
    row("rnn_relu", lambda *t: layers("rnn_relu", *t, first=True), "3+ 2. 4+", "1. 3+ 3+", *cell(1), why=WHY),
    row(
        "rnn_relu (no bias)",
        lambda *t: layers("rnn_relu", *t, biases=False),
        *("3. 2+ 4+", "1. 2+ 3+", *weights(1, "4+")),
        why=WHY,
    ),
    row(
        "rnn_relu (dropout between layers)",
        lambda *t: layers("rnn_relu", *t, biases=False, count=2, dropout=0.5),
        *("3. 2+ 4+", "2. 2+ 3+", *weights(1, "4+", "3+")),
        why=WHY,
        eval_only=True,
    ),
    row("gru", lambda *t: layers("gru", *t), "2. 3+ 4+", "1. 3+ 3+", *cell(3), why=WHY),
    row(
        "gru (two layers, both directions)",
        lambda *t: layers("gru", *t, biases=False, count=2, both=True),
        *("2. 2+ 4+", "4. 2+ 3+", *weights(3, "4+", "4+", "6+", "6+")),
        why=WHY,
    ),
    row("gru (heads)", headed, "2. 2+ 4+", "1. 2+ 4+", *weights(3, "4+", hidden="4+"), why=WHY),
    row("gru (halves)", halved, "2. 2+ 4+", "1. 2+ 4+", *weights(3, "4+", hidden="4+"), why=WHY),
    row("lstm", lambda *t: layers("lstm", *t), "2. 3+ 4+", "1. 3+ 3+", "1. 3+ 3+", *cell(4), why=WHY),
    row("lstm (from zero)", from_zero, "3. 3+ 4+", *cell(4), why=Kind.STATISTIC),
    row(
        "lstm (two layers, both directions)",
        lambda *t: layers("lstm", *t, biases=False, count=2, both=True, first=True),
        *("2+ 2. 4+", "4. 2+ 3+", "4. 2+ 3+", *weights(4, "4+", "4+", "6+", "6+")),
        why=WHY,
    ),
    row(
        "lstm (one weight for both directions)",
        lambda x, h, c, i, w: layers("lstm", x, h, c, i, w, i, w, biases=False, both=True),
        *("2. 2+ 4+", "2. 2+ 3+", "2. 2+ 3+", *weights(4, "4+")),
        why=WHY,
    ),
    row(
        "lstm (dropout between layers)",
        lambda *t: layers("lstm", *t, biases=False, count=2, dropout=0.5),
        *("2. 2+ 4+", "2. 2+ 3+", "2. 2+ 3+", *weights(4, "4+", "3+")),
        why=WHY,
        eval_only=True,
    ),
    row(
        "lstm (projected)",
        lambda *t: layers("lstm", *t),
        *("2. 2+ 4+", "1. 2+ 2+", "1. 2+ 9+", "36+ 4+", "36+ 2+", "36+", "36+", "2+ 9+"),
        why=WHY,
    ),
    row(
        "lstm (projected, two layers)",
        lambda *t: layers("lstm", *t, biases=False, count=2),
        *("2. 2+ 4+", "2. 2+ 2+", "2. 2+ 9+", "36+ 4+", "36+ 2+", "2+ 9+", "36+ 2+", "36+ 2+", "2+ 9+"),
        why=WHY,
    ),
    row(
        "lstm (projected, both directions)",
        lambda *t: layers("lstm", *t, biases=False, both=True),
        *("2. 2+ 4+", "2. 2+ 2+", "2. 2+ 9+", "36+ 4+", "36+ 2+", "2+ 9+", "36+ 4+", "36+ 2+", "2+ 9+"),
        why=WHY,
    ),
    row(
        "lstm (a weight for each gate)",
        gatewise,
        "2. 2+ 4+",
        *["1. 2+ 3+"] * 2,
        *["3+ 4+"] * 4,
        *["3+ 3+"] * 4,
        why=WHY,
    ),
    row("rnn_tanh_cell", torch.rnn_tanh_cell, "3+ 4+", "3+ 3+", *cell(1)),
    row("rnn_tanh_cell (no bias)", torch.rnn_tanh_cell, "3+ 4+", "3+ 3+", *weights(1, "4+")),
    row("rnn_relu_cell", torch.rnn_relu_cell, "3+ 4+", "3+ 3+", *cell(1)),
    row("gru_cell", torch.gru_cell, "3+ 4+", "3+ 3+", *cell(3)),
    row("gru_cell (no bias)", torch.gru_cell, "3+ 4+", "3+ 3+", *weights(3, "4+")),
    row("lstm_cell", lambda x, h, c, *p: torch.lstm_cell(x, (h, c), *p), "3+ 4+", "3+ 3+", "3+ 3+", *cell(4)),
    row(
        "lstm_cell (two steps)",
        unrolled,
        *("3+ 2. 4+", "3+ 3+", "3+ 3+", *weights(4, "4+")),
        why=Kind.INDEX,
    ),
]
