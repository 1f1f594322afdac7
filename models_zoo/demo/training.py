"""A plain training loop for the digits, and how good a model is on those it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Digits

RATE = 3e-4
"""Learning rate of AdamW: small enough for smooth curves, good within eight epochs."""
BATCH = 64
"""Images in a step of training."""


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The class of each image, in evaluation mode; the model stays in the mode it is in."""
    training = model.training
    model.eval()
    with torch.no_grad():
        classes: Tensor = model(images).argmax(dim=1)
    model.train(training)
    return classes


def held_out_correct(model: nn.Module, digits: Digits) -> int:
    """How many held-out images a model gets right."""
    right = predict(model, digits.images[digits.held_out]) == digits.labels[digits.held_out]
    return int(right.sum())


def train(
    model: nn.Module, digits: Digits, *, epochs: int, seed: int, after_epoch: Callable[[int], None] | None = None
) -> None:
    """Train every parameter of a model; it is in evaluation mode afterwards.

    Args:
        model: takes images (N, 1, 8, 8), gives ten scores.
        digits: the data, of which only the training part is used.
        epochs: times that every image is seen.
        seed: of the order of the images.
        after_epoch: called with the epoch, counted from 1.
    """
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    for epoch in range(1, epochs + 1):
        model.train()
        order = digits.train[torch.randperm(len(digits.train), generator=random)]
        for batch in order.split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(model(digits.images[batch]), digits.labels[batch]).backward()
            optimiser.step()
        model.eval()
        if after_epoch is not None:
            after_epoch(epoch)
