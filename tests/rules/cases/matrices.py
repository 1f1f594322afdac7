"""Matrices in the last two axes, diagonals, distances, and transforms along one axis."""

from __future__ import annotations

import torch
from torch import Tensor

from fxgrow.errors import Kind
from fxgrow.testing.blocks import positive

from .row import EVEN, FIRST, SINGULAR, Row, row

INDEX, STATISTIC, WINDOW = Kind.INDEX, Kind.STATISTIC, Kind.WINDOW
LA = torch.linalg


def filled(x: Tensor) -> Tensor:
    """A matrix for each number, which is singular only if the number is zero."""
    return torch.stack([torch.stack([x, x * 2], -1), torch.stack([x * 3, x], -1)], -1)


FFT = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def transform(name: str) -> list[Row]:
    """One Fourier transform, over one axis and over several."""

    def one(x: Tensor) -> object:
        return getattr(torch.fft, name)(x, dim=1)

    def two(x: Tensor) -> object:
        return getattr(torch.fft, f"{name}2")(x)

    def more(x: Tensor) -> object:
        return getattr(torch.fft, f"{name}n")(x, s=(4, 2))

    return [
        row(f"fft_{name}", one, "2+ 4. 3+", why=STATISTIC),
        row(f"fft_{name}2", two, "2+ 3. 4.", why=STATISTIC),
        row(f"fft_{name}n", more, "2+ 3. 3.", why=STATISTIC),
    ]


ROWS: list[Row] = [
    row("tril", torch.tril, "2+ 3. 3.", why=INDEX),
    row("triu", lambda x: x.triu(1), "2+ 3. 4.", why=INDEX),
    row("trace", torch.trace, "3. 3.", why=INDEX),
    row("diagonal", lambda x: x.diagonal(0, 1, -1), "2+ 3. 4+ 3.", why=INDEX),
    row("diagonal (of a matrix)", torch.diagonal, "3. 4.", why=INDEX),
    row("diag_embed", torch.diag_embed, "2+ 3.", why=INDEX),
    row("diag_embed (in front)", lambda x: torch.diag_embed(x, 1, 0, 2), "2+ 4+ 3.", why=INDEX),
    row("det", lambda x: torch.det(filled(x)), "2+ 3+", strict=EVEN),
    row("linalg_det", LA.det, "3+ 2. 2.", why=STATISTIC, strict=EVEN),
    row("logdet", lambda x: torch.logdet(filled(x) @ filled(x)), "2+ 3+", draw=positive),
    row("slogdet", lambda x: torch.slogdet(filled(x)), "2+ 3+", draw=positive, strict=SINGULAR),
    row("linalg_slogdet", LA.slogdet, "3+ 2. 2.", why=STATISTIC),
    row("inverse", lambda x: torch.inverse(filled(x)), "2+ 3+", draw=positive, strict=SINGULAR),
    row("linalg_inv", LA.inv, "3+ 2. 2.", why=STATISTIC),
    row("linalg_matrix_exp", lambda x: LA.matrix_exp(x / 100), "3+ 2. 2.", why=STATISTIC),
    row("cdist", torch.cdist, "3+ 4+", "5+ 4+"),
    row("cdist (batched)", lambda x, y: torch.cdist(x, y, 1.0), "2+ 3+ 4+", "2+ 2+ 4+", strict=EVEN),
    row("cdist (broadcast)", torch.cdist, "2+ 3+ 4+", "2+ 4+"),
    row("cdist (with itself)", lambda x: torch.cdist(x, x), "2+ 3+ 4+"),
    row("cdist (p below one)", lambda x, y: torch.cdist(x, y, 0.5), "2+ 3+ 4.", "2+ 2+ 4.", why=STATISTIC),
    row("diff", lambda x: torch.diff(x, dim=1), "2+ 4. 3+", why=WINDOW),
    row("diff (twice)", lambda x: torch.diff(x, 2), "2+ 4.", why=WINDOW),
    row("diff (with ends)", lambda x, y: torch.diff(x, prepend=y, append=y), "2+ 4.", "2+ 1.", why=WINDOW),
    row("topk", lambda x: torch.topk(x, 2, 1), "2+ 4. 3+", why=STATISTIC),
    row("topk (of all)", lambda x: x.topk(3, -1, False)[0], "2+ 3.", why=STATISTIC),
    row("kthvalue", lambda x: torch.kthvalue(x, 2, 1), "2+ 4. 3+", why=STATISTIC, strict=FIRST),
    row("kthvalue (kept)", lambda x: torch.kthvalue(x, 2, 1, True), "2+ 4. 3+", why=STATISTIC),
    row("nanmedian", lambda x: torch.nanmedian(x, 1), "2+ 4. 3+", why=STATISTIC),
    row("msort", torch.msort, "4. 3+", why=STATISTIC),
    row("rot90", lambda x: torch.rot90(x, 1, (1, 2)), "2+ 3. 4.", why=INDEX),
    row("fliplr", torch.fliplr, "2+ 3. 4+", why=INDEX),
    row("flipud", torch.flipud, "3. 4+", why=INDEX),
    row("fft_fftshift", lambda x: torch.fft.fftshift(x, 1), "2+ 3. 4+", why=INDEX),
    row("fft_ifftshift", torch.fft.ifftshift, "2. 3.", why=INDEX),
    *(case for name in FFT for case in transform(name)),
    row("view_as_real", lambda x: torch.view_as_real(torch.fft.rfft(x, dim=0)), "4. 3+", why=STATISTIC),
    row("view_as_complex", torch.view_as_complex, "3+ 4+ 2.", why=Kind.FIXED),
    row("complex", torch.complex, "3+ 4+", "3+ 4+"),
    row("complex (broadcast)", torch.complex, "3+ 4+", "4+"),
    row("polar", torch.polar, "3+ 4+", "3+ 4+"),
    row("imag", lambda x: torch.fft.fft(x, dim=0).imag, "4. 3+", why=STATISTIC),
    row(
        "a filter of frequencies",
        lambda x, w: torch.fft.irfft(torch.fft.rfft(x, dim=1) * w, dim=1),
        "2+ 4. 3+",
        "3+",
        why=STATISTIC,
    ),
]
