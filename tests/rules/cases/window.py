"""Windows over trailing axes: pooling, interpolation, padding, pixel shuffle; and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fxgrow.errors import Kind

from .row import FIRST, Row, row

WINDOW = Kind.WINDOW
SPACE = {1: "4.", 2: "4. 4.", 3: "2. 4. 2."}
aten = torch.ops.aten


def each_rank(title: str, make: Callable[[int], Callable[..., Any] | None], strict: str = "") -> list[Row]:
    """The same over one, two and three axes."""
    calls = [(rank, make(rank)) for rank in (1, 2, 3)]
    return [
        row(title.format(r), call, f"2+ 3+ {SPACE[r]}", why=WINDOW, strict=strict)
        for r, call in calls
        if call is not None
    ]


def pool(name: str, *args: Any, strict: str = "", **options: Any) -> list[Row]:
    """A pooling function of torch.nn.functional, by its name without the rank."""

    def make(rank: int) -> Callable[..., Any]:
        function = getattr(F, name.format(rank))
        return lambda x: function(x, *args, **options)

    return each_rank(name, make, strict)


def upsample(mode: str, rank: int, **options: Any) -> Row:
    """Interpolation by its mode."""
    return row(
        f"interpolate ({mode}, {rank})",
        lambda x: F.interpolate(x, scale_factor=2, mode=mode, **options),
        f"2+ 3+ {SPACE[rank]}",
        why=WINDOW,
    )


ROWS: list[Row] = [
    *pool("avg_pool{}d", 2),
    *pool("max_pool{}d", 2),
    *pool("max_pool{}d", 2, return_indices=True),
    *pool("lp_pool{}d", 2.0, 2),
    *pool("adaptive_avg_pool{}d", 1),
    *pool("adaptive_max_pool{}d", 1, strict=FIRST),
    *pool("adaptive_max_pool{}d", 2, return_indices=True),
    row("max_pool2d (padded)", lambda x: F.max_pool2d(x, 3, 2, 1), "2+ 3+ 4. 4.", why=WINDOW),
    row("avg_pool2d (padded)", lambda x: F.avg_pool2d(x, 3, 2, 1), "2+ 3+ 4. 4.", why=WINDOW),
    row("max_pool2d (unbatched)", lambda x: F.max_pool2d(x, 2), "3+ 4. 4.", why=WINDOW),
    row("avg_pool3d (over channels)", lambda x: F.avg_pool3d(x, (3, 1, 1), 1, (1, 0, 0)), "2+ 3. 4. 4.", why=WINDOW),
    *(upsample("nearest", rank) for rank in (1, 2, 3)),
    *(upsample("nearest-exact", rank) for rank in (1, 2, 3)),
    upsample("linear", 1, align_corners=True),
    upsample("bilinear", 2),
    upsample("bicubic", 2),
    upsample("trilinear", 3),
    upsample("bilinear", 2, antialias=True),
    upsample("bicubic", 2, antialias=True),
    row("interpolate (to a size)", lambda x: F.interpolate(x, (3, 5)), "2+ 3+ 4. 4.", why=WINDOW),
    row("pad", lambda x: F.pad(x, (1, 2)), "2+ 3+ 4+"),
    row("pad (space)", lambda x: F.pad(x, (1, 1, 0, 2)), "2+ 3+ 4+ 4+"),
    row(
        "pad (with a number)",
        lambda x: F.pad(x, (1, 2), value=3.0),
        "2+ 3+ 4+",
        strict="a number that pads the new axis itself leaves the halves as they are",
    ),
    row("pad (channels)", lambda x: F.pad(x, (0, 0, 0, 2)), "2+ 3+ 4+"),
    row("pad (cropping)", lambda x: F.pad(x, (-1, 0)), "2+ 3+ 4.", why=WINDOW),
    row("constant_pad_nd", lambda x: aten.constant_pad_nd(x, [1, 2], 0.0), "2+ 3+ 4+"),
    *(row(f"pad ({m})", lambda x, m=m: F.pad(x, (1, 1), m), "2+ 3+ 4.", why=WINDOW) for m in ("reflect", "replicate")),
    row("pad (circular)", lambda x: F.pad(x, (1, 1, 1, 0), "circular"), "2+ 3+ 4. 4.", why=WINDOW),
    *each_rank("reflection_pad{}d", lambda r: lambda x: getattr(aten, f"reflection_pad{r}d")(x, [1] * (2 * r))),
    *each_rank("replication_pad{}d", lambda r: lambda x: getattr(aten, f"replication_pad{r}d")(x, [1] * (2 * r))),
    row("dropout", lambda x: F.dropout(x, 0.0), "2+ 3+"),
    row("dropout (training)", lambda x: F.dropout(x, 0.5, True), "2+ 3+", eval_only=True),
    row("dropout_ (training)", lambda x: F.dropout(x.clone(), 0.5, True, True), "2+ 3+", eval_only=True),
    row("alpha_dropout", lambda x: F.alpha_dropout(x, 0.5, True), "2+ 3+", eval_only=True),
    row("native_dropout", lambda x: aten.native_dropout(x, 0.0, True), "2+ 3+"),
    row("native_dropout (training)", lambda x: aten.native_dropout(x, 0.5, True), "2+ 3+", eval_only=True),
    row("feature_dropout", lambda x: F.dropout2d(x, 0.5, True), "2+ 3+ 2+ 2+", eval_only=True),
    row("feature_alpha_dropout", lambda x: F.feature_alpha_dropout(x, 0.5, True), "2+ 3+ 2+", eval_only=True),
    *(
        row(f"{name} (of nothing)", lambda x, f=f: f(x, 0.0, True), "2+ 3+ 2+")
        for name in ("alpha_dropout", "feature_dropout", "feature_alpha_dropout")
        for f in [getattr(aten, name)]
    ),
    row("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), "2+ 8+ 3. 3.", why=WINDOW),
    row("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), "2+ 3+ 4. 2.", why=WINDOW),
    row("channel_shuffle", lambda x: F.channel_shuffle(x, 2), "2+ 6+ 3+ 2+"),
    row("native_channel_shuffle", lambda x: aten.native_channel_shuffle(x, 3), "2+ 6+ 2+ 2+"),
]
