"""The one function that fxgrow puts into a user's graph: the skip adapter of R2R with zero padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def adapt_skip(x: Tensor, dim: int, keep: int, pairs: Sequence[tuple[int, int]], width: int) -> Tensor:
    """Reshape a skip path between volumes of different width without changing what it carries.

    Old channels pass as they are; every later pair of halves (left, right, left, right, ...) enters as
    r(left) - r(right), where r pads with zeros, or folds where there are more fresh channels than `width`;
    channels that the skip does not have are zero.

    Args:
        x: the volume the skip path starts from; any rank.
        dim: the channel axis.
        keep: how many leading channels of `x` pass unchanged, at most `width`.
        pairs: blocks of later channels as (start, number of pairs); a block is laid out l r l r ....
            Channels after `keep` that lie in no block do not enter.
        width: channels of the result.

    Source: R2R, arXiv 2410.11038, equations (17) and (38).
    """
    if has_torch_function_unary(x):  # traced again by torch.fx, it stays one node
        result: Tensor = handle_torch_function(adapt_skip, (x,), x, dim, keep, pairs, width)
        return result
    old = x.narrow(dim, 0, keep)
    rest = list(x.shape)
    rest[dim] = width - keep
    y = torch.cat([old, x.new_zeros(rest)], dim) if width > keep else old
    for start, count in pairs:
        fresh = x.narrow(dim, start, 2 * count).unflatten(dim, (count, 2))
        halves = fresh.select(dim + 1, 0) - fresh.select(dim + 1, 1)
        for offset in range(0, count, width):
            part = halves.narrow(dim, offset, min(width, count - offset))
            missing = list(part.shape)
            missing[dim] = width - part.shape[dim]
            y = y + (torch.cat([part, part.new_zeros(missing)], dim) if missing[dim] else part)
    return y
