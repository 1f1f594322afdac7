"""Real data without a download: the handwritten digits of scikit-learn, always split in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

HELD_OUT = 0.25
"""Fraction of the images that is never used for training."""
BRIGHTEST = 16.0
"""Largest pixel value. Pixels count the ink in 4x4 cells, from 0 to 16."""


@dataclass(frozen=True, slots=True)
class Digits:
    """The images (1797, 1, 8, 8) with values from 0 to 1, their labels, and the split into training and held-out
    images."""

    images: Tensor
    labels: Tensor
    train: Tensor
    """Indices of the training images."""
    held_out: Tensor
    """Indices of the held-out images."""


def digits() -> Digits:
    """Load the digits. A quarter of each class is held out; the split is the same on every call."""
    raw = load_digits()
    labels = torch.tensor(raw.target, dtype=torch.int64)
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / BRIGHTEST
    train, held_out = train_test_split(range(len(labels)), test_size=HELD_OUT, random_state=0, stratify=raw.target)
    return Digits(images, labels, torch.tensor(train), torch.tensor(held_out))
