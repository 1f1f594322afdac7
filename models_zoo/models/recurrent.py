"""Recurrent networks, as layers and as unrolled cells: hidden units are read again at every step."""

from typing import Literal

import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    """Scores each token of token ids (N, T): an embedding, a bidirectional LSTM and a linear head.

    Token 0 is padding. Hidden axes: ``embed``, and the hidden size of ``lstm``, which all its layers and directions
    share.
    """

    def __init__(
        self,
        *,
        tokens: int = 24,
        features: int = 8,
        hidden: int = 6,
        layers: int = 2,
        tags: int = 4,
        dropout: float = 0.1,
        projection: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, features, padding_idx=0)
        self.lstm = nn.LSTM(
            *(features, hidden, layers),
            batch_first=True,
            bidirectional=True,
            dropout=dropout,
            proj_size=projection,
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(2 * (projection or hidden), tags)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.lstm(self.embed(tokens))[0]
        y = self.head(self.drop(y))
        return y


class SequenceClassifier(nn.Module):
    """Classifies sequences of features (T, N, features) by the last hidden state of a GRU or a plain RNN."""

    def __init__(self, *, kind: Literal["gru", "rnn"] = "gru", features: int = 6, hidden: int = 8) -> None:
        super().__init__()
        self.inner = nn.Linear(features, 7)
        self.rnn: nn.RNNBase
        if kind == "gru":
            self.rnn = nn.GRU(7, hidden, bidirectional=True)
        else:
            self.rnn = nn.RNN(7, hidden, num_layers=2, nonlinearity="relu")
        self.head = nn.Linear(2 * hidden if kind == "gru" else hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        out, last = self.rnn(torch.tanh(self.inner(x)))
        y: Tensor = self.head(torch.cat([last[-2], last[-1]], 1) if self.rnn.bidirectional else out[-1])
        return y


class UnrolledCells(nn.Module):
    """Runs an LSTM cell, a GRU cell and an RNN cell over (N, T, features), unrolled step by step.

    The initial states are zeros with constant widths.
    """

    def __init__(self, *, features: int = 4, widths: tuple[int, int, int] = (6, 8, 7), steps: int = 3) -> None:
        super().__init__()
        self.steps, self.widths = steps, widths
        self.lstm = nn.LSTMCell(features, widths[0])
        self.gru = nn.GRUCell(widths[0], widths[1])
        self.rnn = nn.RNNCell(widths[1], widths[2])
        self.head = nn.Linear(widths[2], 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c, g, r = (x.new_zeros((x.shape[0], n)) for n in (self.widths[0], *self.widths))
        for t in range(self.steps):
            h, c = self.lstm(x[:, t], (h, c))
            g = self.gru(h, g)
            r = self.rnn(g, r)
        y: Tensor = self.head(r)
        return y


class BagOfWords(nn.Module):
    """Classifies bags of token ids (N, T) by the mean, sum or maximum of their embeddings."""

    def __init__(self, *, mode: Literal["mean", "sum", "max"] = "mean") -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(24, 8, mode=mode, padding_idx=0)
        self.fc = nn.Linear(8, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.fc(self.embed(tokens))))
        return y
