"""Real data that needs no download: the handwritten digits that come with scikit-learn, always split the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

HELD_OUT = 0.25
"""Part of the images that no training sees."""
BRIGHTEST = 16.0
"""The digits are counts of ink in 4x4 cells, 0 to 16."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (1797, 1, 8, 8) from 0 to 1, their labels 0 to 9, and which of them are for training or held out."""

    images: Tensor
    labels: Tensor
    train: Tensor
    """Positions of the images for training."""
    held_out: Tensor
    """Positions of the others."""


def digits() -> Digits:
    """Load the digits; a quarter of each class is held out, the same images on every call."""
    raw = load_digits()
    labels = torch.tensor(raw.target, dtype=torch.int64)
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / BRIGHTEST
    train, held_out = train_test_split(range(len(labels)), test_size=HELD_OUT, random_state=0, stratify=raw.target)
    return Digits(images, labels, torch.tensor(train), torch.tensor(held_out))
