"""Custom operators without a rule in fxgrow, for models that demonstrate the refusal of unknown operators.

They are registered with ``torch.library``, so that new rules for operators of torch do not change what is refused.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("fxgrow_zoo::subtract_sum", mutates_args=())
def subtract_sum(x: Tensor, dim: int) -> Tensor:
    """Subtract the sum over an axis from every entry along it.

    It is odd, maps zero to zero and preserves the shape, like an elementwise function, but mixes the units.
    """
    return x - x.sum(dim, keepdim=True)


@subtract_sum.register_fake
def _meta(x: Tensor, dim: int) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    _, ctx.dim = inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad - grad.sum(ctx.dim, keepdim=True), None


subtract_sum.register_autograd(_backward, setup_context=_setup)
