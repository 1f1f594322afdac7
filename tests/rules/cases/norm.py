"""Normalisations, softmax, and what else mixes the units of an axis and keeps it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, positive

from .row import TRAINED, Row, row

NORM, STATISTIC, SOFTMAX, INDEX = Kind.NORM, Kind.STATISTIC, Kind.SOFTMAX, Kind.INDEX
AFFINE = (anything, anything, anything)
RUNNING = (anything, anything, positive, anything, anything)


def over_both(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm over two volumes side by side."""
    return lambda x, y, w: norm(torch.cat([x, y], 1), (5,), w, eps=0.5)


ROWS: list[Row] = [
    row(
        "batch_norm",
        lambda x, m, v: F.batch_norm(x, m, v),
        "3. 4+ 3.",
        "4+",
        "4+",
        why=NORM,
        draw=RUNNING[:3],
        strict=TRAINED,
    ),
    row("batch_norm (affine)", F.batch_norm, "3. 4+", "4+", "4+", "4+", "4+", why=NORM, draw=RUNNING),
    row(
        "batch_norm (training)",
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, True),
        *("3. 4+ 2. 2.", "4+", "4+", "4+", "4+"),
        why=NORM,
        draw=RUNNING,
    ),
    row("batch_norm (no statistics)", lambda x: F.batch_norm(x, None, None, training=True), "3+ 4+"),
    row(
        "batch_norm (of kernels)",
        lambda x, w: F.batch_norm(x, None, None, w, training=True),
        "1+ 4+ 3+",
        "4+",
    ),
    row(
        "batch_norm (of kernels, shifted)",
        lambda x, w, b: F.batch_norm(x.flatten(2), None, None, w, b, True),
        *("2+ 4+ 3+ 2+", "4+", "4+"),
    ),
    row(
        "instance_norm",
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
        "2. 4+ 3+",
        "4+",
        "4+",
        why=NORM,
        strict=TRAINED,
    ),
    row(
        "instance_norm (running)",
        lambda x, m, v: F.instance_norm(x, m, v, use_input_stats=False),
        "2. 4+ 3.",
        "4+",
        "4+",
        why=NORM,
        draw=RUNNING[:3],
    ),
    row("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), "2+ 4+ 3.", "4+", "4+", why=NORM, strict=TRAINED),
    row("group_norm (plain)", lambda x: F.group_norm(x, 2), "2+ 4+ 3. 2.", why=NORM),
    row("group_norm (one group)", lambda x: F.group_norm(x, 1), "2+ 4+ 3.", why=NORM),
    row("group_norm (each channel)", lambda x, w, b: F.group_norm(x, 4, w, b), "2+ 4+ 3.", "4+", "4+", why=NORM),
    row("layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), "2+ 3+ 4+", "4+", "4+", strict=TRAINED),
    row("layer_norm (plain)", lambda x: F.layer_norm(x, (4,)), "2+ 3+ 4+"),
    row("layer_norm (plain, two axes)", lambda x: F.layer_norm(x, (3, 4)), "2+ 3+ 4+"),
    row("layer_norm (two axes)", lambda x, w, b: F.layer_norm(x, (2, 3), w, b), "2+ 2+ 3+", "2+ 3+", "2+ 3+"),
    row("layer_norm (scale)", lambda x, w: F.layer_norm(x, (4,), w), "2+ 3+ 4+", "4+"),
    row("layer_norm (of a concatenation)", over_both(F.layer_norm), "3+ 2+", "3+ 3+", "5+"),
    row("rms_norm", lambda x, w: F.rms_norm(x, (4,), w), "2+ 3+ 4+", "4+", strict=TRAINED),
    row("rms_norm (epsilon)", lambda x, w: F.rms_norm(x, (4,), w, 0.5), "2+ 3+ 4+", "4+"),
    row("rms_norm (plain)", lambda x: F.rms_norm(x, (4,)), "2+ 3+ 4+"),
    row("rms_norm (two axes)", lambda x, w: F.rms_norm(x, (2, 3), w, 0.5), "2+ 2+ 3+", "2+ 3+"),
    row("rms_norm (of a concatenation)", over_both(F.rms_norm), "3+ 2+", "3+ 3+", "5+"),
    row("rms_norm (1 + scale)", lambda x, w: F.rms_norm(x, (4,), 1 + w), "3+ 4+", "4+"),
    row("rms_norm (scale used twice)", lambda x, w: F.rms_norm(x, (4,), w) + w, "3+ 4+", "4+"),
    row("rms_norm (one scale, two norms)", lambda x, w: F.rms_norm(F.rms_norm(x, (4,), w), (4,), w), "3+ 4+", "4+"),
    row("rms_norm (of tiny numbers)", lambda x, w: F.rms_norm(x * 1e-8, (4,), w), "3+ 4+", "4+"),
    row("softmax", lambda x: F.softmax(x, 1), "2+ 3+ 4+"),
    row("softmax (of a product)", lambda x: F.softmax(x.flatten(1), 1), "2+ 3+ 2+"),
    row("softmax (of a concatenation)", lambda x, y: torch.cat([x, y], 1).softmax(1), "2+ 3+", "2+ 2+"),
    row("_softmax", lambda x: torch.ops.aten._softmax(x, -1, False), "2+ 3+ 4+"),
    row("softmin", lambda x: F.softmin(x, 1), "2+ 3+ 4+"),
    row("log_softmax", lambda x: F.log_softmax(x, 0), "2. 3+ 4+", why=SOFTMAX),
    row("cumsum", lambda x: torch.cumsum(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("cumprod", lambda x: torch.cumprod(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("cummax", lambda x: torch.cummax(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("cummin", lambda x: torch.cummin(x, -1), "2+ 3+ 4.", why=STATISTIC),
    row("logcumsumexp", lambda x: torch.logcumsumexp(x, 0), "2. 3+ 4+", why=STATISTIC),
    row("sort", lambda x: torch.sort(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("argsort", lambda x: torch.argsort(x, 1), "2+ 3. 4+", why=STATISTIC),
    row("flip", lambda x: torch.flip(x, (1,)), "2+ 3. 4+", why=INDEX),
    row("roll", lambda x: torch.roll(x, 1, 1), "2+ 3. 4+", why=INDEX),
    row("roll (flat)", lambda x: torch.roll(x, 1), "2. 3. 4.", why=INDEX),
]
