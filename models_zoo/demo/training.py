"""A training loop for the digits, and the accuracy on held-out images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Digits

RATE = 3e-4
"""Learning rate of AdamW: small enough for smooth curves, and sufficient for eight epochs."""
BATCH = 64
"""Number of images in a training step."""


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Predict the class of each image in evaluation mode; the mode of the model is restored."""
    training = model.training
    model.eval()
    with torch.no_grad():
        classes: Tensor = model(images).argmax(dim=1)
    model.train(training)
    return classes


def held_out_correct(model: nn.Module, digits: Digits) -> int:
    """Return the number of held-out images that a model classifies correctly."""
    right = predict(model, digits.images[digits.held_out]) == digits.labels[digits.held_out]
    return int(right.sum())


def train(
    model: nn.Module, digits: Digits, *, epochs: int, seed: int, after_epoch: Callable[[int], None] | None = None
) -> None:
    """Train all parameters of a model. The model is in evaluation mode afterwards.

    Args:
        model: maps images (N, 1, 8, 8) to ten scores.
        digits: the data; only the training part is used.
        epochs: number of passes over the training images.
        seed: seed of the order of the images.
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
