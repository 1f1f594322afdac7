"""Windows written out and put together again, and channels sampled at given places."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import anything, below, unit

from .row import Row, row

WINDOW, INDEX, CONSTANT = Kind.WINDOW, Kind.INDEX, Kind.CONSTANT
GRID = (anything, unit)


def elsewhere(rank: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Values that are put where those of another tensor were largest."""

    def call(x: Tensor, y: Tensor) -> Tensor:
        places = getattr(F, f"max_pool{rank}d")(y, 2, return_indices=True)[1]
        back: Tensor = getattr(F, f"max_unpool{rank}d")(x, places, 2)
        return back

    return call


def unpooled(rank: int) -> Callable[[Tensor], Tensor]:
    """Pooled, and put back where it was."""

    def call(x: Tensor) -> Tensor:
        pooled = getattr(F, f"max_pool{rank}d")(x, 2, return_indices=True)
        back: Tensor = getattr(F, f"max_unpool{rank}d")(pooled[0], pooled[1], 2)
        return back

    return call


ROWS: list[Row] = [
    row("unfold", lambda x: x.unfold(1, 2, 1), "2+ 4. 3+", why=WINDOW),
    row("unfold (last, apart)", lambda x: x.unfold(-1, 2, 2), "2+ 3+ 4.", why=WINDOW),
    row("unfold (single units)", lambda x: x.unfold(0, 1, 1), "3. 2+", why=WINDOW),
    row("unfold (a number)", lambda x, y: x.sum().unfold(0, 1, 1) * y, "2+ 3+", "2+ 1+"),
    row("im2col", lambda x: F.unfold(x, 2), "2+ 3+ 3. 4.", why=WINDOW),
    row("im2col (unbatched)", lambda x: F.unfold(x, 2, padding=1, stride=2), "3+ 4. 4.", why=WINDOW),
    row("im2col (one channel)", lambda x: F.unfold(x, (1, 2)), "2+ 1+ 3. 4.", why=WINDOW),
    row(
        "im2col (of a concatenation)", lambda x, y: F.unfold(torch.cat([x, y], 1), 2), *("2+ 2+ 3. 3.",) * 2, why=WINDOW
    ),
    row("im2col (a convolution)", lambda x, w: w @ F.unfold(x, 2), "2+ 3+ 3. 3.", "5+ 12+", why=WINDOW),
    row("col2im", lambda x: F.fold(x, (3, 4), 2), "2+ 12+ 6.", why=WINDOW),
    row("col2im (unbatched)", lambda x: F.fold(x, (4, 4), 2, stride=2), "12+ 4.", why=WINDOW),
    row("col2im (of im2col)", lambda x: F.fold(F.unfold(x, 2), (3, 4), 2), "2+ 3+ 3. 4.", why=WINDOW),
    row(
        "grid_sampler",
        lambda x, g: F.grid_sample(x, g, align_corners=True),
        *("2+ 3+ 4. 4.", "2+ 5+ 3+ 2."),
        why=(WINDOW, INDEX),
        draw=GRID,
    ),
    row(
        "grid_sampler (nearest, at the border)",
        lambda x, g: F.grid_sample(x, g, "nearest", "border", align_corners=False),
        *("2+ 3+ 4. 4.", "2+ 5+ 3+ 2."),
        why=(WINDOW, INDEX),
        draw=GRID,
    ),
    row(
        "grid_sampler (three axes)",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        *("2+ 3+ 2. 3. 2.", "2+ 2+ 3+ 2+ 3."),
        why=(WINDOW, INDEX),
        draw=GRID,
    ),
    row("affine_grid_generator", lambda t: F.affine_grid(t, [2, 3, 4, 5], False), "2+ 2. 3.", why=INDEX),
    row("affine_grid_generator (3)", lambda t: F.affine_grid(t, [2, 3, 2, 2, 3], True), "2+ 3. 4.", why=INDEX),
    row("max_unpool2d", unpooled(2), "2+ 3+ 4. 4.", why=WINDOW),
    row("max_unpool2d (unbatched)", unpooled(2), "3+ 4. 4.", why=WINDOW),
    *(
        row(
            f"max_unpool{rank}d (places of others)",
            elsewhere(rank),
            *("2+ 3+ " + "2. " * rank, "2+ 3+ " + "4. " * rank),
            why=WINDOW,
        )
        for rank in (2, 3)
    ),
    *(
        row(
            f"max_unpool{rank}d (given places)",
            lambda x, i, rank=rank: getattr(F, f"max_unpool{rank}d")(x, i, [2] * rank),
            *("2. 3. " + "2. " * rank, "2. 3. " + "2. " * rank),
            why=(WINDOW, CONSTANT),
            draw=(anything, below(16)),
        )
        for rank in (2, 3)
    ),
    row("max_unpool1d", unpooled(1), "2+ 3+ 4.", why=WINDOW),
    row("max_unpool3d", unpooled(3), "2+ 3+ 2. 4. 2.", why=WINDOW),
]
